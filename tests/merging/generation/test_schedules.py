import pytest
import torch
from diffusers import DDIMScheduler

from merging.generation.schedules import SCHEDULE, for_sampling


def walk(schedule, *, eta):
    """A code on its way from noise alone, when the network says nothing."""
    draws = torch.Generator().manual_seed(4)
    current = torch.empty(3, 16).normal_(generator=draws)
    for time in schedule.timesteps.tolist():
        noise = torch.empty(3, 16).normal_(generator=draws)
        current = schedule.step(torch.zeros(3, 16), time, current, eta=eta, variance_noise=noise, return_dict=False)[0]
    return current


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_every_number_of_steps_comes_from_noise_alone_to_numbers(eta):
    assert all(bool(walk(for_sampling(steps), eta=eta).isfinite().all()) for steps in range(1, 101))


def test_steps_that_diffusers_gives_numbers_for_are_its_own():
    same = 0
    for steps in range(1, 60):
        plain = DDIMScheduler(**SCHEDULE)
        plain.set_timesteps(steps)
        told = walk(plain, eta=1.0)
        if bool(told.isfinite().all()):
            same += 1
            assert torch.equal(walk(for_sampling(steps), eta=1.0), told)
    # It has none for more than a quarter of them, 25 steps among these.
    assert 20 < same < 45
