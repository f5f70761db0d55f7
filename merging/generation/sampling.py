"""From a draw to the change of one tensor's values: the arms, the radius and the amounts.

Every tensor is sampled by itself, in full batches of one fixed shape, in float32, each on one core or one device:
nothing depends on what else is sampled, on the number of threads or on the order of the work.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from core.draws import Draw
from core.errors import GeneratorMisfitError
from merging.generation.chunks import count
from merging.generation.config import TensorEntry
from merging.generation.dataset import labels_of
from merging.generation.generator import Generator
from merging.generation.networks import DECILES, Labels
from merging.generation.noise import normals
from merging.generation.schedules import for_sampling
from merging.generation.values import changed, values_of
from merging.lanes import single_threaded, spread
from merging.reductions import squared_norm


@torch.no_grad()
def sampled(generator: Generator, weight: Tensor, name: str, draw: Draw, amount: float = 1.0) -> Tensor:
    """The tensor of a candidate: float32; the very same tensor where the draw changes nothing.

    Args:
        generator: what to sample from, on the weight's device.
        weight: W0, float32.
        name: of the tensor.
        draw: the sample.
        amount: the factor on the tensor's change.

    Raises:
        GeneratorMisfitError: the generator does not know the tensor, or has nothing to offer for this arm.
    """
    entry = generator.check_tensor(name, weight.shape)
    if draw.idle or amount == 0.0:
        return weight
    if draw.guidance != 1.0 and generator.config.settings.drop == 0.0:
        raise GeneratorMisfitError(
            f"guidance {draw.guidance!r} needs a denoiser that also knows no condition, but this one was trained with "
            "drop 0: leave guidance at 1, or train it with a drop",
            where="guidance",
        )
    parameterisation = generator.config.settings.parameterisation
    values = values_of(weight, parameterisation)
    change = change_of(generator, entry, values, draw)
    sizeable = sized(change, values, draw, amount)
    return weight if sizeable is None else changed(weight, values, sizeable, parameterisation)


def change_of(generator: Generator, entry: TensorEntry, values: Tensor, draw: Draw) -> Tensor:
    """The change of a tensor's values before blend, radius and amount: float32, (n,); frozen values have none."""
    if draw.arm == "matched-noise":
        change = normals(draw.seed, "noise", entry.name, 0, entry.numel, values.device)
        change = _held(generator, entry, change)
        if draw.rho is not None:
            return change
        rival = change_of(generator, entry, values, draw.evolve(arm="diffusion"))
        size, own = squared_norm(rival), squared_norm(change)
        return change.mul_((size / own) ** 0.5 if own else 0.0)
    if draw.arm == "parent-average":
        if entry.name not in generator.reference:
            raise GeneratorMisfitError(
                "`parent-average` needs the mean of several sources, but the generator was trained on one: choose "
                "another arm, or train it on more",
                where="arm",
            )
        return _held(generator, entry, generator.reference[entry.name] - values)
    return _held(generator, entry, _through_codes(generator, entry, values, draw))


def sized(change: Tensor, values: Tensor, draw: Draw, amount: float) -> Tensor | None:
    """The change times blend and amount, or of norm amount * rho * |values|; None where there is none."""
    factor = draw.blend
    if draw.rho is not None:
        size = squared_norm(change)
        if size == 0.0:
            return None
        factor = draw.rho * (squared_norm(values) / size) ** 0.5
    return change.mul_(factor * amount)


def _held(generator: Generator, entry: TensorEntry, change: Tensor) -> Tensor:
    change[generator.frozen[entry.name].long()] = 0.0
    return change


def _through_codes(generator: Generator, entry: TensorEntry, values: Tensor, draw: Draw) -> Tensor:
    """Encoded, moved, and decoded again, batch by batch."""
    config = generator.config
    delta = config.settings.parameterisation == "delta"
    reference = generator.reference[entry.name] if delta else None
    scaled = generator.scaling(entry.name).apply(values if reference is None else values - reference)
    scaled[generator.frozen[entry.name].long()] = 0.0
    batches = -(-count(entry.numel, config.chunk) // config.rows)
    length = config.rows * config.chunk
    padded = torch.nn.functional.pad(scaled, (0, batches * length - entry.numel)).view(batches, config.rows, -1)
    out = torch.empty_like(padded)

    def work(batch: int) -> None:
        out[batch] = moved_chunks(generator, entry, padded[batch], batch * config.rows, draw)

    _each(work, range(batches), values.device)
    change = out.view(-1)[: entry.numel]
    if draw.mode == "absolute":
        change = change - values if reference is None else change + reference - values
    return change


def _each(work: Callable[[int], None], batches: range, device: torch.device) -> None:
    """Every batch, each on one core: the bytes of a matrix product may depend on how many share it."""
    if device.type != "cpu":
        for batch in batches:
            work(batch)
        return
    lanes = torch.get_num_threads()
    with single_threaded():
        spread(work, batches, lanes)


def moved_chunks(generator: Generator, entry: TensorEntry, chunks: Tensor, first: int, draw: Draw) -> Tensor:
    """A full batch of a tensor's chunks: their change, or what they become where the draw is absolute.

    Args:
        generator: what to sample from.
        entry: of the tensor.
        chunks: (rows, chunk) normalised, 0 where a value is frozen or padded; as many rows as a batch has.
        first: number of the first of them within the tensor.
        draw: the sample; its radius, blend and amounts are not looked at.
    """
    best = DECILES - 1 if generator.config.scored else 0
    labels = labels_of(entry, first, len(chunks), chunks.device, best)
    mu, std = generator.autoencoder.encode(chunks, labels)
    moved = _moved(generator, mu, std, labels, partial(_noise, draw, entry, first, mu), draw)
    undo = generator.scaling(entry.name).undo
    result = undo(generator.autoencoder.decode(moved, labels))
    return result if draw.mode == "absolute" else result.sub_(undo(generator.autoencoder.decode(mu, labels)))


#: Gives N(0, 1) of a batch's codes for a purpose.
Noise = Callable[[str], Tensor]


def _noise(draw: Draw, entry: TensorEntry, first: int, like: Tensor, purpose: str) -> Tensor:
    start = first * like.shape[1]
    return normals(draw.seed, purpose, entry.name, start, start + like.numel(), like.device).view(like.shape)


def _moved(generator: Generator, mu: Tensor, std: Tensor, labels: Labels, noise: Noise, draw: Draw) -> Tensor:
    """The codes to be decoded: one sample, or z0 + sum_k a_k (z_k - z0) over several."""

    def sample(number: int) -> Tensor:
        if draw.arm == "posterior":
            return mu + draw.tau * std * noise(f"posterior {number}")
        code = mu / generator.config.code_std
        return denoised(generator, code, labels, partial(_named, noise, number), draw) * generator.config.code_std

    if not draw.coefficients:
        return sample(0)
    moved = mu.clone()
    for number, coefficient in enumerate(draw.coefficients):
        if coefficient != 0.0:
            moved += coefficient * (sample(number) - mu)
    return moved


def _named(noise: Noise, number: int, purpose: str) -> Tensor:
    return noise(f"{purpose} {number}")


def denoised(generator: Generator, codes: Tensor, labels: Labels, noise: Noise, draw: Draw) -> Tensor:
    """Codes with noise up to the draw's strength, taken back step by step (SDEdit).

    Args:
        generator: has the denoiser.
        codes: z0 in the denoiser's units, (n, latent).
        labels: of the chunks.
        noise: gives N(0, 1) of that shape.
        draw: strength, steps, tau, eta, guidance.
    """
    if draw.strength == 0.0:
        return codes
    schedule = _schedule(draw.steps)
    taken = max(1, round(draw.strength * draw.steps))
    times = schedule.timesteps[draw.steps - taken :].tolist()
    kept = float(schedule.alphas_cumprod[times[0]])
    current: Tensor = kept**0.5 * codes + (1.0 - kept) ** 0.5 * draw.tau * noise("start")
    for time in times:
        v = _velocity(generator, current, time, labels, draw.guidance)
        extra = draw.tau * noise(f"step {time}") if draw.eta else None
        current = schedule.step(v, time, current, eta=draw.eta, variance_noise=extra, return_dict=False)[0]
    return current


def _velocity(generator: Generator, codes: Tensor, time: int, labels: Labels, guidance: float) -> Tensor:
    times = torch.full((len(codes),), time, dtype=torch.int64, device=codes.device)
    told: Tensor = generator.denoiser(codes, times, labels)
    if guidance == 1.0:
        return told
    fields = {name: getattr(labels, name) for name in labels.__dataclass_fields__}
    blank = Labels(**{**fields, "told": torch.zeros_like(labels.told)})
    free: Tensor = generator.denoiser(codes, times, blank)
    guided: Tensor = free + guidance * (told - free)
    return guided


@cache
def _schedule(steps: int) -> Any:
    return for_sampling(steps)
