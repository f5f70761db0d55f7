"""A registered parent: what its header says, and whether parents fit together (a pure function over headers)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any

from pydantic import Field

from core.architectures import Architecture, architecture_of
from core.errors import ParentsDoNotFitError
from core.meaning import COSMETIC, meaning
from core.noun import Noun, digest_of

#: Bytes per element of the safetensors dtypes that can be merged.
DTYPE_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
#: torch's names of those dtypes.
DTYPE_NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


class TensorInfo(Noun):
    """One tensor of a checkpoint: safetensors dtype name and shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        total = 1
        for size in self.shape:
            total *= size
        return total


class Header(Noun):
    """What a checkpoint says of itself, without its weights.

    Attributes:
        model_type: the family (`llama`, `mistral`, ...).
        config: `config.json` as canonical JSON text.
        layers: depth of the stack; 0 where the family is not known.
        vocab_size: rows of the embedding; 0 where the config of a family that is not known does not say.
        rope_theta: RoPE base, if the config names one.
        tokenizer_digest: sha256 over the vocabulary, merges and added tokens: what must fit between parents.
        tokenizer_rules: sha256 over how the tokenizer cuts a text, see `core.segmentation`; None where that is not
            known: without a `tokenizer.json`, and in headers of before this was read.
        tokenizer_files: sha256 over the tokenizer's files, less chat templates and names: what decides how a text is
            encoded. All are None without a tokenizer.
        tensors: every tensor, sorted by name.
    """

    model_type: str
    config: str
    layers: Annotated[int, Field(ge=0)]
    vocab_size: int
    rope_theta: float | None = None
    tokenizer_digest: str | None = None
    tokenizer_rules: str | None = None
    tokenizer_files: str | None = None
    tensors: tuple[TensorInfo, ...]

    @property
    def architecture(self) -> Architecture:
        """Where this family keeps its layers."""
        return architecture_of(self.model_type)

    @property
    def config_dict(self) -> dict[str, Any]:
        """A fresh copy of the parsed `config.json`."""
        return dict(json.loads(self.config))

    @cached_property
    def config_digest(self) -> str:
        """sha256 over all of the config that may change what equal weights compute."""
        return digest_of({key: value for key, value in self.config_dict.items() if key not in COSMETIC})

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(tensor.elements for tensor in self.tensors)

    @cached_property
    def meaning(self) -> Mapping[str, Any]:
        """What the config says that must be the same in models that are combined, see `core.meaning.meaning`."""
        return meaning(self.config_dict, self.architecture)

    @cached_property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shape by tensor name."""
        return {tensor.name: tensor.shape for tensor in self.tensors}

    def layer_suffixes(self, index: int) -> tuple[str, ...]:
        """Suffixes of one layer's tensors, sorted."""
        found = (self.architecture.locate(tensor.name) for tensor in self.tensors)
        return tuple(sorted(place[1] for place in found if place and place[0] == index))

    @cached_property
    def stack_suffixes(self) -> tuple[tuple[str, ...], ...]:
        """`layer_suffixes` of every layer, found in one pass."""
        found: list[list[str]] = [[] for _ in range(self.layers)]
        family = self.architecture
        for tensor in self.tensors:
            place = family.locate(tensor.name)
            if place is not None and place[0] < self.layers:
                found[place[0]].append(place[1])
        return tuple(tuple(sorted(suffixes)) for suffixes in found)

    def embed_tensors(self) -> tuple[str, ...]:
        """Names of the tensors before the stack: all of them where the family is not known."""
        if not self.architecture.known:
            return tuple(sorted(self.shapes))
        return tuple(name for name in self.architecture.embed if name in self.shapes)

    def head_tensors(self) -> tuple[str, ...]:
        """Names of the tensors after the stack (no `lm_head` where it is tied)."""
        return tuple(name for name in self.architecture.head if name in self.shapes)


class Model(Noun):
    """A parent in the registry.

    Attributes:
        name: name within the registry or the job.
        ref: pinned reference: `local:<path>` or `hub:<org>/<name>@<commit>`.
        weights_digest: sha256 over sorted (name, dtype, shape, sha256 of bytes); independent of sharding.
        header: its header.
    """

    name: str
    ref: str
    weights_digest: str
    header: Header


def check_fit(models: Sequence[Model], *, same_depth: bool = True, same_vocabulary: bool = True) -> None:
    """Check that parents can be combined tensor by tensor.

    Args:
        models: the parents; the first one is the measure.
        same_depth: also require the same number of layers (merging needs it, layouts do not).
        same_vocabulary: also require one vocabulary; without it, embeddings may differ in their number of rows.

    Raises:
        ParentsDoNotFitError: names the two parents, the rule and the tensor or field that differs.
    """
    first, *rest = models
    for other in rest:
        _check_pair(first, other, same_depth, same_vocabulary)
    if same_vocabulary:
        _check_reading(models)


def _check_pair(first: Model, other: Model, same_depth: bool, same_vocabulary: bool) -> None:
    a, b = first.header, other.header
    for rule, left, right in (
        ("the model type", a.model_type, b.model_type),
        ("the RoPE base", _rope_base(a), _rope_base(b)),
    ):
        if left != right:
            raise _misfit(first, other, f"{rule} must be the same, but they have {left!r} and {right!r}")
    if same_vocabulary:
        _check_vocabulary(first, other)
    if same_depth and a.layers != b.layers:
        raise _misfit(first, other, f"merging needs equal depth, but they have {a.layers} and {b.layers} layers")
    for key in sorted(a.meaning.keys() | b.meaning.keys()):
        if a.meaning.get(key) != b.meaning.get(key):
            values = f"{a.meaning.get(key)!r} and {b.meaning.get(key)!r}"
            raise _misfit(first, other, f"{key!r} must be the same, but they have {values}", key)
    if a.shapes == b.shapes:
        return
    left_shapes, right_shapes = (_comparable(header, same_depth, same_vocabulary) for header in (a, b))
    for name in sorted(left_shapes.keys() | right_shapes.keys()):
        left_shape, right_shape = left_shapes.get(name), right_shapes.get(name)
        if left_shape != right_shape:
            raise _misfit(
                first, other, f"tensor {name!r} must have one shape, but it is {left_shape} and {right_shape}", name
            )


def _check_vocabulary(first: Model, other: Model) -> None:
    a, b = first.header, other.header
    sizes = f"they have {a.vocab_size!r} and {b.vocab_size!r} rows"
    if a.vocab_size != b.vocab_size:
        reason = f"the vocabulary size must be the same, but {sizes}"
    elif a.tokenizer_digest != b.tokenizer_digest:
        reason = f"the tokenizer's vocabulary must be the same, but {sizes} of other tokens"
    else:
        return
    raise _misfit(first, other, reason, "tokenizer", "a recipe can align them with tokenizer: {mode: union}")


def _check_reading(models: Sequence[Model]) -> None:
    """Equal tokens mean equal things only where a text is cut in one way; aligned vocabularies check it themselves."""
    first, *rest = [model for model in models if model.header.tokenizer_rules is not None] or [models[0]]
    for other in rest:
        if other.header.tokenizer_rules != first.header.tokenizer_rules:
            raise ParentsDoNotFitError(
                f"{first.name!r} and {other.name!r} do not fit: their tokenizers have the same tokens, but must "
                "also cut a text in one way (normalizer, pre_tokenizer, options of the model); use fine-tunes of one "
                "base, or give both the tokenizer.json that is right for both",
                where="tokenizer",
            )


def _rope_base(header: Header) -> float | None:
    rope = header.architecture.rope
    return rope.theta if header.rope_theta is None and rope is not None else header.rope_theta


def _comparable(header: Header, same_depth: bool, same_vocabulary: bool) -> dict[str, tuple[int, ...]]:
    """Shapes by full name, less what may differ: the layer's index and the rows of the vocabulary."""
    family, shapes = header.architecture, dict(header.shapes)
    if not same_vocabulary:
        shapes |= {name: shapes[name][1:] for name in family.vocabulary if name in shapes}
    if same_depth:
        return shapes
    places = {name: family.locate(name) for name in shapes}
    return {family.layer + place[1] if place else name: shapes[name] for name, place in places.items()}


def _misfit(
    first: Model, other: Model, reason: str, where: str | None = None, way_out: str = ""
) -> ParentsDoNotFitError:
    other_way = f", or {way_out}" if way_out else ""
    return ParentsDoNotFitError(
        f"{first.name!r} and {other.name!r} do not fit: {reason}; use fine-tunes of one base{other_way}", where=where
    )
