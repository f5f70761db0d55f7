"""What a generator is worth, as far as weights alone can tell: how it rebuilds, and whether it only repeats.

Nothing here says that a sample is a good model: that is measured on questions, beside noise of the same size.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from core.draws import Draw
from merging.generation.autoencoder import divergence
from merging.generation.chunks import count, pack, unpack
from merging.generation.dataset import Dataset, batches
from merging.generation.generator import Generator
from merging.generation.sampling import change_of

#: A number of a code is in use from so many nats on.
ACTIVE = 0.01
#: Samples that the memorisation report looks at, and values of each at most.
SAMPLES, LOOKED_AT = 8, 1 << 22
#: Samples this much closer to a source than sources are to one another repeat it.
REPLICA = 0.1


@torch.no_grad()
def measure(generator: Generator, data: Dataset, held: Tensor) -> dict[str, Any]:
    """Figures for `metrics.json`, JSON values only.

    Args:
        generator: trained.
        data: what it was trained on.
        held: positions of a source's chunks that it was not trained on.
    """
    rebuilt, units, spread = _through(generator, data)
    seen = torch.ones(data.chunks.shape[1], dtype=torch.bool, device=data.chunks.device)
    seen[held] = False
    closest = _memorisation(generator, data)
    error = _relative(rebuilt[:, seen], data.chunks[:, seen])
    distance = closest["median_source_distance"]
    return {
        "values_rel_l2": _values_error(generator, data, rebuilt),
        "chunks_rel_l2": error,
        "held_out_chunks": len(held),
        "held_out_chunks_rel_l2": _relative(rebuilt[:, held], data.chunks[:, held]) if len(held) else None,
        "active_units": units,
        "posterior_std": spread,
        "code_std": generator.config.code_std,
        "error_over_source_distance": _rms(rebuilt - data.chunks) / distance if distance else None,
        "memorisation": closest,
    }


def _through(generator: Generator, data: Dataset) -> tuple[Tensor, float, float]:
    """Every source's chunks decoded from mu; the share of active numbers of the codes, and their mean spread."""
    flat = data.chunks.reshape(-1, data.chunk)
    rebuilt, nats, spread, total = [], torch.zeros(generator.config.latent, device=flat.device), 0.0, len(flat)
    for rows in batches(total, data.rows, flat.device):
        labels = data.labels.take(rows)
        mu, std = generator.autoencoder.encode(flat[rows], labels)
        nats += divergence(mu, std).sum(0) / total
        spread += float(std.sum()) / (total * std.shape[1])
        rebuilt.append(generator.autoencoder.decode(mu, labels))
    whole = torch.cat(rebuilt).view(data.chunks.shape) * data.shown
    return whole, float((nats > ACTIVE).float().mean()), spread


def _values_error(generator: Generator, data: Dataset, rebuilt: Tensor) -> float:
    """|v' - v| / |v| over all sources and tensors, frozen values aside."""
    wrong = size = 0.0
    first = 0
    for entry in data.entries:
        last = first + count(entry.numel, data.chunk)
        scaling, shown = generator.scaling(entry.name), unpack(data.shown[first:last], entry.numel)
        for one, other in zip(rebuilt[:, first:last], data.chunks[:, first:last], strict=True):
            told = scaling.undo(unpack(one, entry.numel))
            true = scaling.undo(unpack(other, entry.numel))
            wrong += float(((told - true) * shown).double().square().sum())
            if generator.config.settings.parameterisation == "delta":
                true = true + data.reference[entry.name]
            size += float((true * shown).double().square().sum())
        first = last
    return (wrong / size) ** 0.5 if size else 0.0


def _memorisation(generator: Generator, data: Dataset) -> dict[str, Any]:
    """How near samples from noise alone come to a source, in units of the normalised weights' spread."""
    apart = [_rms(one - other) for one, other in combinations(data.chunks, 2)]
    between = _median(apart) if apart else None
    samples = [_sample(generator, data, seed) for seed in range(SAMPLES)]
    looked = len(samples[0])
    sources = [source.reshape(-1)[:looked] for source in data.chunks]
    nearest = _median([min(_rms(sample - source) for source in sources) for sample in samples])
    ratio = nearest / between if between else None
    return {
        "samples": SAMPLES,
        "nearest_source_distance": nearest,
        "median_source_distance": between,
        "median_sample_distance": _median([_rms(one - other) for one, other in combinations(samples, 2)]),
        "ratio": ratio,
        "replica": None if ratio is None else ratio < REPLICA,
    }


def _sample(generator: Generator, data: Dataset, seed: int) -> Tensor:
    """A sample from noise alone, normalised and flat, of as many tensors as are looked at."""
    found, taken, first = [], 0, 0
    parameterisation = generator.config.settings.parameterisation
    for entry in data.entries:
        rows = count(entry.numel, data.chunk)
        scaling = generator.scaling(entry.name)
        values = scaling.undo(unpack(data.chunks[0, first : first + rows], entry.numel))
        if parameterisation == "delta":
            values = values + data.reference[entry.name]
        draw = Draw(generator="0" * 64, selectors=("norms",), mode="absolute", strength=1.0, seed=seed)
        told = values + change_of(generator, entry, values, draw)
        if parameterisation == "delta":
            told = told - data.reference[entry.name]
        found.append((pack(scaling.apply(told), data.chunk) * data.shown[first : first + rows]).reshape(-1))
        first, taken = first + rows, taken + entry.numel
        if taken >= LOOKED_AT:
            break
    return torch.cat(found)


def _relative(told: Tensor, true: Tensor) -> float:
    size = float(true.double().square().sum())
    return (float((told - true).double().square().sum()) / size) ** 0.5 if size else 0.0


def _rms(change: Tensor) -> float:
    return float(change.double().square().mean().sqrt())


def _median(values: list[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else 0.5 * (ordered[middle - 1] + ordered[middle])
