"""Everything that can be decided about a candidate before a single tensor is read."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch

from core.alignment import Alignment
from core.architectures import Architecture, architecture_of
from core.draws import Draw
from core.errors import CheckpointError
from core.model import DTYPE_NAMES, Header
from core.noun import digest_of
from core.params import Scalar
from core.recipe.output import OutputTensor, output_tensors, walk
from core.recipe.resolved import Part, ResolvedRecipe, ResolvedSource
from core.selectors import select
from merging.methods import method_of
from merging.randomness import MaskKey, mask_key


@dataclass(frozen=True, slots=True)
class Leaf:
    """A tensor of a parent, as it lies in its checkpoint."""

    digest: str
    name: str
    dtype: torch.dtype

    @property
    def key(self) -> str:
        """Names the tensor's content."""
        return f"{self.digest}/{self.name}"


@dataclass(frozen=True)
class Pool:
    """What one source changes over a whole candidate, for methods that trim it all by one measure.

    Attributes:
        members: the source's tensor, the base's and how many elements they have; each pair once, by first appearance.
    """

    members: tuple[tuple[Leaf | TensorPlan, Leaf | TensorPlan, int], ...]

    @cached_property
    def key(self) -> str:
        """Names the content of all of it."""
        return digest_of([[tensor.key, base.key] for tensor, base, _ in self.members])


@dataclass(frozen=True, slots=True)
class Sampled:
    """How a tensor is sampled around what its plan describes.

    Attributes:
        draw: the sample, and `digest` its name.
        tensor: the name under which the generator knows it.
        amount: factor on its change.
        models: weights digests of what the candidate is made of.
    """

    draw: Draw = field(compare=False)
    digest: str
    tensor: str
    amount: float
    models: tuple[str, ...] = field(compare=False)

    @property
    def key(self) -> list[str | float]:
        """Names the sample in every process."""
        return [self.digest, self.tensor, self.amount]


@dataclass(frozen=True)
class TensorPlan:
    """How one output tensor comes about.

    Attributes:
        name, shape: of the output tensor.
        method, version: the kernel.
        sources: parents' tensors, or plans of nested recipes, in the order of the entry's sources.
        base: position of the base among them, if the method takes deltas.
        params, source_params, scale: the recipe's values for this tensor.
        keys: what keys each source's mask.
        dtype: the dtype the result is rounded to, once.
        part, shift: a factor on a part of the scaled result, and what is added to it then.
        pools: of every source, where its task vector is trimmed over the whole model; the base has none.
        activations: where the statistics of its inputs stand, for a method that looks at them.
        inputs_first: the tensor is a matrix that stands as (inputs, outputs), for a method to which that matters.
        site: names all of the plan but the recipe's values and the tensor's name, where that is known.
        sampled: the sample around all of this.
    """

    name: str
    shape: tuple[int, ...]
    method: str
    version: int
    sources: tuple[Leaf | TensorPlan, ...]
    base: int | None
    params: Mapping[str, Scalar]
    source_params: tuple[Mapping[str, Scalar], ...]
    scale: float
    keys: tuple[MaskKey, ...]
    dtype: torch.dtype
    part: Part | None = None
    shift: float = 0.0
    pools: tuple[Pool | None, ...] = ()
    activations: Leaf | None = None
    inputs_first: bool = False
    site: bytes | None = field(default=None, compare=False, repr=False)
    sampled: Sampled | None = None

    @property
    def copies(self) -> bool:
        """Whether the result is its source, at most rounded: no arithmetic."""
        return self.method == "passthrough" and self.scale == 1.0 and self.plain is self

    @property
    def plain(self) -> TensorPlan:
        """The plan without `part`, `shift` and `sampled`, in float32; itself where it has none of them."""
        if self.part is None and self.shift == 0.0 and self.sampled is None:
            return self
        return replace(self, part=None, shift=0.0, sampled=None, dtype=torch.float32)

    @cached_property
    def shared(self) -> Leaf | None:
        """The parent's tensor that this one is, byte for byte, if it is one."""
        source = self.sources[0]
        return source if self.copies and isinstance(source, Leaf) and source.dtype == self.dtype else None

    @cached_property
    def content(self) -> Hashable:
        """Equal contents mean equal bytes, whatever the tensor is called; a cheaper `key` within one process."""
        sources = tuple(s if isinstance(s, Leaf) else s.content for s in self.sources)
        if self.copies:
            return sources, self.dtype
        part = (
            None if self.part is None else (self.part.axis, self.part.period, self.part.length, _exact(self.part.scale))
        )
        values = (_items(self.params), *map(_items, self.source_params), _exact(self.scale), part, _exact(self.shift))
        more = (self.keys, tuple(pool and pool.key for pool in self.pools), self.activations, self.sampled)
        return sources, self.dtype, self.method, self.version, self.base, self.inputs_first, values, more

    @cached_property
    def key(self) -> str:
        """Names the tensor's content in every process: equal keys mean equal bytes, whatever the tensor is called."""
        content = [[s.digest, s.name] if isinstance(s, Leaf) else s.key for s in self.sources]
        if self.copies:
            return digest_of([content, str(self.dtype)])
        keys = [[key.index, key.state] for key in self.keys]
        values = [self.method, self.version, self.base, dict(self.params), [dict(p) for p in self.source_params]]
        more: list[Any] = [] if self.plain is self else [self.part and self.part.model_dump(), self.shift]
        more += [pool and pool.key for pool in self.pools]
        more += [] if self.activations is None else [self.activations.key]
        more += ["inputs first"] if self.inputs_first else []
        more += [] if self.sampled is None else [self.sampled.key]
        return digest_of([content, str(self.dtype), *values, self.scale, keys, *more])


def _items(values: Mapping[str, Scalar]) -> Hashable:
    return tuple((name, _exact(value)) for name, value in values.items())


def _exact(value: Scalar) -> Scalar:
    """The value, or its text where it is 0: 0.0 and -0.0 are equal, but may give other bytes."""
    return value or str(value)


def plan(
    recipe: ResolvedRecipe, headers: Mapping[str, Header], alignment: Alignment | None = None
) -> tuple[TensorPlan, ...]:
    """The plan of every output tensor: the embedding, the layers in order, the head.

    A nested recipe becomes nested plans, each rounded to that recipe's own `save_dtype`, as if it had been exported
    and loaded again. (Only masks tell the two apart: they are keyed by the recipe's digest here, and by the digest of
    the weights there.)

    Args:
        recipe: the candidate.
        headers: headers of its models by weights digest.
        alignment: the order of its vocabulary's rows, where that is an aligned one.

    Raises:
        MissingCheckpointError: no header for one of its models.
        ParentsDoNotFitError: a source lacks a tensor, or its shape differs; names the tensor.
        UnknownMethodError: no such merge method.
        CheckpointError: the recipe was resolved for another version of a method.
    """
    infos = output_tensors(recipe, headers, None if alignment is None else alignment.rows)
    tables = [_table(source, headers) for source in recipe.sources]
    architecture = architecture_of(recipe.model_type)
    if recipe.vocabulary is not None:
        for position, table in enumerate(tables):
            digest = recipe.aligned_digest(position)
            table.update({name: Leaf(digest, name, torch.float32) for name in architecture.vocabulary if name in table})
    dtype: torch.dtype = getattr(torch, recipe.save_dtype)
    outputs = tuple(walk(recipe))
    plans = tuple(
        _plan(recipe, tensor, info.shape, dtype, architecture, tables)
        for tensor, info in zip(outputs, infos, strict=True)
    )
    return _sampled(recipe, _pooled(outputs, plans), architecture)


def _sampled(
    recipe: ResolvedRecipe, plans: tuple[TensorPlan, ...], architecture: Architecture
) -> tuple[TensorPlan, ...]:
    """The plans, those that the recipe's draw selects with the sample around them."""
    draw, depth = recipe.generation, len(recipe.layers)
    if draw is None:
        return tuple(map(_collapsed, plans))
    digest, models = draw.digest(), recipe.model_digests()
    targets = {each.name: each for each in select([p.name for p in plans], architecture, depth, draw.selectors)}
    found = []
    for planned in plans:
        target = targets.get(planned.name)
        amount = 0.0 if target is None else draw.amount(target.layer, depth)
        sampled = Sampled(draw, digest, planned.name, amount, models) if amount else None
        found.append(_collapsed(planned) if sampled is None else replace(planned, sampled=sampled))
    return tuple(found)


def _collapsed(planned: TensorPlan) -> TensorPlan:
    """A nested result passed through in its own dtype is that result, and may in turn be a parent's tensor."""
    inner = planned.sources[0]
    if planned.copies and isinstance(inner, TensorPlan) and inner.dtype == planned.dtype:
        return replace(inner, name=planned.name)
    return planned


def _pooled(outputs: tuple[OutputTensor, ...], plans: tuple[TensorPlan, ...]) -> tuple[TensorPlan, ...]:
    """The plans, those that are trimmed over the whole model with what they are trimmed among."""
    names = [_pool_names(output, planned) for output, planned in zip(outputs, plans, strict=True)]
    members: dict[tuple[int, int], dict[tuple[str, str], tuple[Leaf | TensorPlan, Leaf | TensorPlan, int]]] = {}
    for planned, own in zip(plans, names, strict=True):
        for tensor, name in zip(planned.sources, own, strict=False):
            if name is not None:
                base = planned.sources[planned.base or 0]
                found = members.setdefault(name, {})
                found.setdefault((tensor.key, base.key), (tensor, base, math.prod(planned.shape)))
    pools = {name: Pool(tuple(found.values())) for name, found in members.items()}
    return tuple(
        replace(planned, pools=tuple(name and pools[name] for name in own)) if own else planned
        for planned, own in zip(plans, names, strict=True)
    )


def _pool_names(output: OutputTensor, planned: TensorPlan) -> tuple[tuple[int, int] | None, ...]:
    """Of every source but the base, the recipe's positions of source and base; nothing where tensors stand alone."""
    if planned.params.get("trim_scope") != "model" or planned.base is None:
        return ()
    sources = [source for source, _ in output.entry.sources]
    base = sources[planned.base]
    return tuple(None if place == planned.base else (source, base) for place, source in enumerate(sources))


def _table(source: ResolvedSource, headers: Mapping[str, Header]) -> dict[str, Leaf | TensorPlan]:
    """What an ingredient has to offer, by tensor name."""
    if source.recipe is not None:
        return {item.name: item for item in plan(source.recipe, headers)}
    digest = source.source_digest
    tensors = headers[digest].tensors
    return {info.name: Leaf(digest, info.name, getattr(torch, DTYPE_NAMES[info.dtype])) for info in tensors}


def _plan(
    recipe: ResolvedRecipe,
    tensor: OutputTensor,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    architecture: Architecture,
    tables: list[dict[str, Leaf | TensorPlan]],
) -> TensorPlan:
    entry, group = tensor.entry, tensor.group
    info = method_of(entry.method).info
    if info.version != entry.version:
        raise CheckpointError(
            f"the recipe asks for version {entry.version!r} of {entry.method!r}, but this is version "
            f"{info.version!r}: resolve it again or use the release that wrote it"
        )
    names = [tensor.source_name(position, architecture) for position in range(len(entry.sources))]
    sources = tuple(tables[source][name] for (source, _), name in zip(entry.sources, names, strict=True))
    digests = [recipe.sources[source].source_digest for source, _ in entry.sources] if info.random else []
    return TensorPlan(
        name=tensor.name,
        shape=shape,
        method=entry.method,
        version=entry.version,
        sources=sources,
        base=entry.base,
        params=tensor.params,
        source_params=tensor.source_params,
        scale=group.scale,
        keys=tuple(mask_key(recipe.seed, *pair) for pair in zip(digests, names, strict=False)),
        dtype=dtype,
        part=group.part,
        shift=group.shift,
        activations=_activations(recipe.statistics, names[entry.base or 0]) if info.measured else None,
        inputs_first=info.measured and len(shape) == 2 and architecture.inputs_first(tensor.name),
    )


def _activations(statistics: str | None, name: str) -> Leaf | None:
    """The statistics of a tensor's inputs, under the tensor's name in the base."""
    return None if statistics is None else Leaf(statistics, name, torch.float32)
