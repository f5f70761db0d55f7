"""What a generator is worth, as far as weights alone can tell: how it rebuilds, and whether it only repeats.

Nothing here says that a sample is a good model: that is measured on questions, beside noise of the same size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from core.draws import Draw
from merging.generation.autoencoder import divergence
from merging.generation.chunks import count, pack
from merging.generation.dataset import Dataset, batches, rms_between
from merging.generation.generator import Generator
from merging.generation.sampling import moved_chunks
from merging.generation.scaling import Scaling
from merging.reductions import squared_norm

#: A number of a code is in use from so many nats on.
ACTIVE = 0.01
#: Samples that the memorisation report looks at, and values of each at most.
SAMPLES, LOOKED_AT = 8, 1 << 20
#: Samples this much closer to a source than sources are to one another repeat it.
REPLICA = 0.1


@dataclass(slots=True)
class Error:
    """A squared error beside the size of what it is an error of, summed over batches."""

    wrong: float = 0.0
    size: float = 0.0

    def add(self, told: Tensor, true: Tensor) -> None:
        """One more batch: equal shapes, 0 where nothing is compared."""
        self.wrong += squared_norm((told - true).reshape(-1))
        self.size += squared_norm(true.reshape(-1))

    @property
    def relative(self) -> float:
        """|told - true| / |true|; 0 where there is nothing."""
        return (self.wrong / self.size) ** 0.5 if self.size else 0.0


@dataclass(slots=True)
class Rebuilt:
    """What comes back of all sources' chunks, decoded from mu.

    Attributes:
        seen, held: of normalised chunks that were trained on, and that were not.
        values: of the values that they stand for.
        nats: (latent,) mean divergence of each number of a code.
        spread: mean standard deviation of a code's numbers.
    """

    nats: Tensor
    seen: Error = field(default_factory=Error)
    held: Error = field(default_factory=Error)
    values: Error = field(default_factory=Error)
    spread: float = 0.0


@torch.no_grad()
def measure(generator: Generator, data: Dataset, held: Tensor) -> dict[str, Any]:
    """Figures for `metrics.json`, JSON values only; chunks are looked at batch by batch, and nothing is kept of them.

    Args:
        generator: trained.
        data: what it was trained on.
        held: positions of a source's chunks that it was not trained on.
    """
    rebuilt = _through(generator, data, held)
    closest = _memorisation(generator, data)
    distance = closest["median_source_distance"]
    error = ((rebuilt.seen.wrong + rebuilt.held.wrong) / data.chunks.numel()) ** 0.5
    return {
        "values_rel_l2": rebuilt.values.relative,
        "chunks_rel_l2": rebuilt.seen.relative,
        "held_out_chunks": len(held),
        "held_out_chunks_rel_l2": rebuilt.held.relative if len(held) else None,
        "active_units": float((rebuilt.nats > ACTIVE).float().mean()),
        "posterior_std": rebuilt.spread,
        "code_std": generator.config.code_std,
        "error_over_source_distance": error / distance if distance else None,
        "memorisation": closest,
    }


def _through(generator: Generator, data: Dataset, held: Tensor) -> Rebuilt:
    flat, own = data.chunks.view(-1, data.chunk), data.chunks.shape[1]
    unseen = torch.zeros(own, dtype=torch.bool, device=flat.device)
    unseen[held] = True
    values = _Values(data, generator.config.settings.parameterisation == "delta")
    found, total = Rebuilt(torch.zeros(generator.config.latent, device=flat.device)), len(flat)
    for rows in batches(total, data.rows, flat.device):
        true, labels, place = flat[rows], data.labels.take(rows), rows % own
        mu, std = generator.autoencoder.encode(true, labels)
        found.nats += divergence(mu, std).sum(0) / total
        found.spread += float(std.sum()) / (total * std.shape[1])
        told = generator.autoencoder.decode(mu, labels) * data.shown[place]
        away = unseen[place]
        found.held.add(told[away], true[away])
        found.seen.add(told[~away], true[~away])
        found.values.add(values.of(told, place), values.of(true, place))
    return found


class _Values:
    """What normalised chunks stand for.

    Args:
        data: of the training.
        delta: whether chunks hold what values have beyond the sources' mean.
    """

    def __init__(self, data: Dataset, delta: bool) -> None:
        device, counts = data.chunks.device, [count(entry.numel, data.chunk) for entry in data.entries]
        rows = torch.tensor(counts, device=device)
        constants = torch.tensor([[entry.centre, entry.spread] for entry in data.entries], device=device)
        constants = constants.repeat_interleave(rows, dim=0)
        self._centre, self._spread = constants[:, :1], constants[:, 1:]
        self._shown = data.shown
        means = [pack(data.reference[entry.name], data.chunk) for entry in data.entries] if delta else []
        self._mean = torch.cat(means) if means else None

    def of(self, chunks: Tensor, place: Tensor) -> Tensor:
        """The values of normalised chunks at some positions of a source: (n, size), 0 where nothing is shown."""
        values = Scaling(0.0, 1.0).undo(chunks) * self._spread[place] + self._centre[place]
        if self._mean is not None:
            values += self._mean[place]
        return values * self._shown[place]


def _memorisation(generator: Generator, data: Dataset) -> dict[str, Any]:
    """How near samples from noise alone come to a source, in units of the normalised weights' spread."""
    between = _median(data.apart) if data.apart else None
    samples = [_sample(generator, data, seed) for seed in range(SAMPLES)]
    sources = [source.reshape(-1)[: len(samples[0])] for source in data.chunks]
    nearest = _median([min(rms_between(sample, source) for source in sources) for sample in samples])
    ratio = nearest / between if between else None
    return {
        "samples": SAMPLES,
        "nearest_source_distance": nearest,
        "median_source_distance": between,
        "median_sample_distance": _median([rms_between(one, other) for one, other in combinations(samples, 2)]),
        "ratio": ratio,
        "replica": None if ratio is None else ratio < REPLICA,
    }


def _sample(generator: Generator, data: Dataset, seed: int) -> Tensor:
    """A sample from noise alone, normalised and flat: the first chunks, as many as are looked at."""
    draw = Draw(generator="0" * 64, selectors=("norms",), mode="absolute", strength=1.0, seed=seed)
    found, first, wanted = [], 0, min(len(data.shown), -(-LOOKED_AT // data.chunk))
    for entry in data.entries:
        own = count(entry.numel, data.chunk)
        for start in range(0, min(own, wanted - first), data.rows):
            rows = min(data.rows, own - start, wanted - first - start)
            place = slice(first + start, first + start + rows)
            whole = torch.zeros((data.rows, data.chunk), device=data.chunks.device)
            whole[:rows] = data.chunks[0, place]
            told = generator.scaling(entry.name).apply(moved_chunks(generator, entry, whole, start, draw)[:rows])
            found.append((told * data.shown[place]).reshape(-1))
        first += own
        if first >= wanted:
            break
    return torch.cat(found)


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else 0.5 * (ordered[middle - 1] + ordered[middle])
