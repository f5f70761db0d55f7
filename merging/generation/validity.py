"""The gate before a sample is scored: cheap looks first, a short perplexity last, a typed refusal for each.

A refusal is the outcome of a trial, not a fault: sampled weights are often bad, and questions are dear.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from core.architectures import architecture_of
from core.errors import (
    NonFiniteWeightsError,
    SampleNormError,
    SamplePeakError,
    SamplePerplexityError,
    SampleUnchangedError,
)
from core.recipe.resolved import ResolvedRecipe
from core.selectors import select
from merging.generation.sources import builder
from merging.reductions import squared_norm
from merging.sources import Parents, largest_magnitude, tensor_bytes


@dataclass(frozen=True, slots=True)
class Limits:
    """Where the gate closes.

    Attributes:
        norm: bounds of |W'| / |W0| of every tensor.
        peak: of max|w'| / max|w0|.
        changed: the least share of all sampled elements that differs after the rounding to the storage dtype.
        perplexity: of the sample's perplexity over the base's.
    """

    norm: tuple[float, float] = (0.9, 1.1)
    peak: float = 1.5
    changed: float = 1e-4
    perplexity: float = 1.5


@dataclass(frozen=True, slots=True)
class Validity:
    """What the gate saw.

    Attributes:
        norm: the ratio furthest from 1, with `norm_at` its tensor; `peak` likewise.
        changed: share of elements that differ from the base's.
        distance: |W' - W0| / |W0| over all sampled tensors, as stored.
        digest: sha256 over the sampled tensors as stored.
        perplexity: ratio to the base's; None before it was taken.
    """

    norm: float
    norm_at: str
    peak: float
    peak_at: str
    changed: float
    distance: float
    digest: str
    perplexity: float | None = None


def check_weights(
    base: Callable[[str], Tensor],
    sampled: Mapping[str, Tensor],
    limits: Limits | None = None,
    *,
    known: Iterable[str] = (),
) -> Validity:
    """Look at the weights of a sample.

    Args:
        base: gives a tensor of the base in the storage dtype.
        sampled: the sampled tensors by name, in the storage dtype (`Built.tensors`, those that the draw selects).
        limits: where the gate closes.
        known: digests of samples that were seen before.

    Raises:
        NonFiniteWeightsError, SampleNormError, SamplePeakError, SampleUnchangedError: why it is refused.
    """
    limits = limits or Limits()
    norm, peak = (1.0, ""), (1.0, "")
    different = elements = 0
    change = size = 0.0
    for name in sorted(sampled):
        before, after = base(name), sampled[name]
        largest = largest_magnitude(after)
        if not math.isfinite(largest):
            raise NonFiniteWeightsError(f"sampled weights must be finite, but tensor {name!r} is not", where=name)
        old, new = squared_norm(before.reshape(-1)), squared_norm(after.reshape(-1))
        ratio = (new / old) ** 0.5 if old else 1.0
        norm = max(norm, (ratio, name), key=lambda pair: abs(math.log(max(pair[0], 1e-30))))
        top = largest_magnitude(before)
        peak = max(peak, (largest / top if top else 1.0, name))
        different += int((before != after).sum())
        elements += before.numel()
        change += squared_norm((after.float() - before.float()).reshape(-1))
        size += old
    found = Validity(
        *norm, *peak, different / max(1, elements), (change / size) ** 0.5 if size else 0.0, _digest(sampled)
    )
    _refuse(found, limits, set(known))
    return found


def check_sample(
    recipe: ResolvedRecipe,
    tensors: Mapping[str, Tensor],
    parents: Parents,
    limits: Limits | None = None,
    *,
    known: Iterable[str] = (),
) -> Validity | None:
    """As `check_weights`, of a built candidate; None where its recipe has no draw.

    Args:
        recipe: the candidate.
        tensors: all of its weights by name, in the storage dtype (`Built.tensors`).
        parents: the open checkpoints, which its base is built from.
        limits, known: as in `check_weights`.
    """
    if recipe.generation is None:
        return None
    architecture, depth = architecture_of(recipe.model_type), len(recipe.layers)
    chosen = select(tensors, architecture, depth, recipe.generation.selectors)
    sampled = {each.name: tensors[each.name] for each in chosen if recipe.generation.amount(each.layer, depth)}
    return check_weights(builder(recipe.evolve(generation=None), parents), sampled, limits, known=known)


def check_perplexity(base: float, perplexity: Callable[[], float], limits: Limits | None = None) -> float:
    """The ratio of the sample's perplexity to the base's.

    Args:
        base: perplexity of the base on some text (the prompts of the search items).
        perplexity: takes that of the sample on the same text.
        limits: where the gate closes.

    Raises:
        SamplePerplexityError: it is not finite, or too far above.
    """
    limits = limits or Limits()
    ratio = perplexity() / base
    if not ratio <= limits.perplexity:
        raise SamplePerplexityError(
            f"a sample's perplexity may be {limits.perplexity!r} times its base's, but is {ratio!r} times: "
            "take a smaller radius"
        )
    return ratio


def _refuse(found: Validity, limits: Limits, known: set[str]) -> None:
    low, high = limits.norm
    if not low <= found.norm <= high:
        raise SampleNormError(
            f"a sampled tensor's norm must be {low!r} to {high!r} times its base's, but that of {found.norm_at!r} is "
            f"{found.norm!r} times: take a smaller radius",
            where=found.norm_at,
        )
    if not found.peak <= limits.peak:
        raise SamplePeakError(
            f"no sampled weight may exceed {limits.peak!r} times its base's largest, but in {found.peak_at!r} one is "
            f"{found.peak!r} times as large: take a smaller radius",
            where=found.peak_at,
        )
    if found.changed < limits.changed:
        raise SampleUnchangedError(
            f"at least {limits.changed!r} of the sampled weights must differ from the base's as stored, but "
            f"{found.changed!r} do: take a larger radius or a wider dtype"
        )
    if found.digest in known:
        raise SampleUnchangedError("a sample must differ from those before it, but is equal to one: draw another")


def _digest(sampled: Mapping[str, Tensor]) -> str:
    total = hashlib.sha256()
    for name in sorted(sampled):
        total.update(name.encode() + b"\0")
        total.update(tensor_bytes(sampled[name].to(torch.device("cpu"))))
    return total.hexdigest()
