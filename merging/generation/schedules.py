"""The diffusion's noise schedule: diffusers' own, with all noise at its end and no clipping."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import DDIMScheduler, DDPMScheduler
from torch import Tensor

#: `clip_sample` defaults to true in diffusers, and would cut codes off at one without a word.
SCHEDULE: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
    "clip_sample": False,
}


def for_training() -> DDPMScheduler:
    """Adds noise and gives velocities."""
    return DDPMScheduler(**SCHEDULE)


class Sampling(DDIMScheduler):  # type: ignore[misc]
    """diffusers' sampler, which gives no number for its first step where all is noise and all of it is drawn anew.

    There (eta 1) it takes the root of 1 - abar - sigma², which is 0, or by rounding a little less. A sigma² that is
    rounded down until nothing is missing leaves every other step as it was, to the last bit.
    """

    def _get_variance(self, timestep: int, prev_timestep: int) -> Tensor:
        variance: Tensor = super()._get_variance(timestep, prev_timestep)
        before = self.alphas_cumprod[prev_timestep] if prev_timestep >= 0 else self.final_alpha_cumprod
        while float(1 - before - (variance**0.5) ** 2) < 0.0:
            variance = torch.nextafter(variance, torch.zeros_like(variance))
        return variance


def for_sampling(steps: int) -> DDIMScheduler:
    """Takes noise back in so many steps."""
    schedule = Sampling(**SCHEDULE)
    schedule.set_timesteps(steps)
    return schedule
