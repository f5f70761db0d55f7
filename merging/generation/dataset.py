"""The training data of a generator: the selected tensors of every source, as normalised chunks with labels."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from core.errors import InvalidInputError, NonFiniteCheckpointError
from core.generators import Training
from core.model import Header
from core.selectors import Target, select
from merging.generation.chunks import count, index, mask, pack
from merging.generation.config import TensorEntry
from merging.generation.networks import DECILES, SOURCES, Labels
from merging.generation.scaling import Scaling, frozen, scaling_of
from merging.generation.values import numel, values_of
from merging.reductions import ordered_sum


@dataclass(frozen=True, slots=True)
class Source:
    """Weights to learn from.

    Attributes:
        digest: weights digest of a model, recipe digest of a candidate.
        lineage: weights digests of the models it is made of.
        tensor: gives one of its tensors by name.
        score: how well it did, where that is known; more is better.
    """

    digest: str
    lineage: tuple[str, ...]
    tensor: Callable[[str], Tensor]
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Dataset:
    """Everything training needs; tensors on the training's device.

    Attributes:
        kinds, entries: what the generator will know.
        chunk, rows: as in `merging.generation.config`.
        chunks: float32, (sources, chunks, size), normalised, 0 where nothing is shown.
        shown: bool, (chunks, size): false where a value is frozen or padded.
        apart: root mean squares of the differences between each two sources' chunks, sorted; empty for a single one.
        labels: of the chunks of every source, (sources * chunks,).
        frozen: int32 indices of the values that stay, by tensor.
        reference: float32 mean of the sources' values, by tensor; empty where there is one source.
    """

    kinds: tuple[str, ...]
    entries: tuple[TensorEntry, ...]
    chunk: int
    rows: int
    chunks: Tensor
    shown: Tensor
    apart: tuple[float, ...]
    labels: Labels
    frozen: dict[str, Tensor]
    reference: dict[str, Tensor]


def dataset_of(header: Header, sources: Sequence[Source], settings: Training, device: torch.device) -> Dataset:
    """The data of some sources.

    Args:
        header: of the base; every source has its tensors.
        sources: the base first.
        settings: of the training.
        device: where the data are wanted.

    Raises:
        SelectorError: a selector that finds nothing.
        InvalidInputError: no source, too many, or a single one with nothing to tell it from.
        NonFiniteCheckpointError: a selected tensor of a source with NaN or infinity in it.
    """
    _check(sources, settings)
    shapes = header.shapes
    targets = select(shapes, header.architecture, header.layers, settings.selectors)
    kinds = tuple(sorted({target.kind for target in targets}))
    numels = [numel(settings.parameterisation, shapes[target.name]) for target in targets]
    size = min(settings.chunk, max(numels))
    counts = [count(length, size) for length in numels]
    # Every tensor goes into its place at once: parts that are joined at the end would be held twice.
    chunks = torch.zeros((len(sources), sum(counts), size), device=device)
    shown = torch.zeros((sum(counts), size), dtype=torch.bool, device=device)
    entries, first = [], 0
    kept: dict[str, Tensor] = {}
    reference: dict[str, Tensor] = {}
    for target, length, rows in zip(targets, numels, counts, strict=True):
        found = [_finite(source, target.name, settings).to(device) for source in sources]
        if len(found) > 1:
            reference[target.name] = _mean(found)
        kept[target.name] = frozen(found[0], scaling_of(found[0]), settings.freeze)
        if settings.parameterisation == "delta":
            found = [values - reference[target.name] for values in found]
        scaling = scaling_of(torch.cat(found) if len(found) > 1 else found[0])
        show = mask(length, size, device)
        show.view(-1)[kept[target.name].long()] = 0.0
        shown[first : first + rows] = show > 0.0
        for place, values in enumerate(found):
            chunks[place, first : first + rows] = pack(scaling.apply(values), size) * show
        entries.append(_entry(target, kinds, shapes[target.name], length, scaling))
        first += rows
    return Dataset(
        kinds=kinds,
        entries=tuple(entries),
        chunk=size,
        rows=min(256, max(counts)),
        chunks=chunks,
        shown=shown,
        apart=tuple(sorted(rms_between(one, other) for one, other in combinations(chunks.flatten(1), 2))),
        labels=_labels(entries, size, sources, device),
        frozen=kept,
        reference=reference,
    )


def rms_between(one: Tensor, other: Tensor) -> float:
    """The root mean square of the difference of two flat tensors."""
    total = ordered_sum(one.numel(), lambda start, stop: (one[start:stop] - other[start:stop]).double().square())
    return float((total / one.numel()) ** 0.5)


def deciles(scores: Sequence[float | None]) -> list[int]:
    """1 for the worst tenth of what is scored to 10 for the best; 0 for what is not.

    Equals count as the best of them, and a lone one is the best: sampling asks for 10, which must have been seen.
    """
    known = sorted(score for score in scores if score is not None)
    best, last = DECILES - 1, len(known) - 1

    def rank(score: float) -> int:
        place = bisect_right(known, score) - 1
        return best if last == 0 else 1 + (place * (best - 1) + last // 2) // last

    return [0 if score is None else rank(score) for score in scores]


def labels_of(entry: TensorEntry, first: int, rows: int, device: torch.device, decile: int = 0) -> Labels:
    """The labels of so many chunks of a tensor from one on, of no particular source."""

    def full(value: int) -> Tensor:
        return torch.full((rows,), value, dtype=torch.int64, device=device)

    numbers = torch.arange(first, first + rows, device=device)
    told = torch.ones((rows, 1), device=device)
    return Labels(full(entry.kind), full(entry.layer + 1), numbers, full(0), full(decile), told)


def batches(total: int, rows: int, device: torch.device) -> list[Tensor]:
    """The positions from 0 to `total`, so many at a time: int64."""
    return [torch.arange(first, min(first + rows, total), device=device) for first in range(0, total, rows)]


def _check(sources: Sequence[Source], settings: Training) -> None:
    if not 1 <= len(sources) < SOURCES:
        raise InvalidInputError(f"a generator learns from 1 to {SOURCES - 1} sources, but got {len(sources)!r}")
    if settings.parameterisation == "delta" and len(sources) == 1:
        raise InvalidInputError(
            "`delta` takes what sources have beyond their mean, which is nothing for a single one: add sources or "
            "choose `gain` or `full`",
            where="parameterisation",
        )


def _finite(source: Source, name: str, settings: Training) -> Tensor:
    values = values_of(source.tensor(name), settings.parameterisation)
    if not bool(values.isfinite().all()):
        odd = int((~values.isfinite()).sum())
        raise NonFiniteCheckpointError(
            f"a generator learns from finite weights, but {odd!r} values of tensor {name!r} of source "
            f"{source.digest!r} are not: leave that source out, or mend it",
            where=name,
        )
    return values


def _mean(found: Sequence[Tensor]) -> Tensor:
    total = found[0].double()
    for values in found[1:]:
        total = total + values.double()
    return (total / len(found)).float()


def _entry(target: Target, kinds: Sequence[str], shape: tuple[int, ...], length: int, scaling: Scaling) -> TensorEntry:
    return TensorEntry(
        name=target.name,
        kind=kinds.index(target.kind),
        layer=target.layer,
        shape=shape,
        numel=length,
        centre=scaling.centre,
        spread=scaling.spread,
    )


def _labels(entries: Sequence[TensorEntry], size: int, sources: Sequence[Source], device: torch.device) -> Labels:
    rows = list(index([entry.numel for entry in entries], size))
    ranks = deciles([source.score for source in sources])

    def column(values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=device)

    many = len(sources)
    return Labels(
        kind=column([entries[row.tensor].kind for row in rows] * many),
        layer=column([entries[row.tensor].layer + 1 for row in rows] * many),
        number=column([row.number for row in rows] * many),
        # A single one is told from nobody, and samples name no source.
        source=column([place if many > 1 else 0 for place in range(1, many + 1) for _ in rows]),
        decile=column([rank for rank in ranks for _ in rows]),
        told=torch.ones((many * len(rows), 1), device=device),
    )
