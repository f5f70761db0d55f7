"""What a resolved recipe puts out, told without a tensor library: its tensors, their shapes and its `config.json`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from core.architectures import Architecture, LayerTypes, architecture_of
from core.catalog import catalog
from core.errors import MissingCheckpointError, ParentsDoNotFitError
from core.meaning import in_both_forms
from core.model import DTYPE_NAMES, Header, TensorInfo
from core.params import Scalar
from core.recipe.attention import attention_kinds, check_attention
from core.recipe.resolved import Entry, Group, ResolvedRecipe, ResolvedSource

#: safetensors' names of the dtypes a candidate can be saved in.
SAVE_DTYPES = {name: code for code, name in DTYPE_NAMES.items()}
#: Config keys that say where a checkpoint came from, or that point at code.
PROVENANCE_KEYS = ("_name_or_path", "auto_map", "transformers_version")
Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class OutputTensor:
    """One tensor of the candidate and where its values come from."""

    name: str
    entry: Entry
    group: Group
    suffix: str

    def source_name(self, position: int, architecture: Architecture) -> str:
        """The tensor's name in the entry's source at `position`."""
        layer = self.entry.sources[position][1]
        return self.suffix if layer < 0 else architecture.layer_tensor(layer, self.suffix)

    @property
    def params(self) -> dict[str, Scalar]:
        """The values that hold for the whole tensor, the implied ones included."""
        return {**catalog().method(self.entry.method).implied(source=False), **self.group.params}

    @property
    def source_params(self) -> tuple[dict[str, Scalar], ...]:
        """The values per source, the implied ones included; the base has none."""
        implied = catalog().method(self.entry.method).implied(source=True)
        return tuple(
            {} if position == self.entry.base else {**implied, **values}
            for position, values in enumerate(self.group.source_params)
        )


def walk(recipe: ResolvedRecipe) -> Iterator[OutputTensor]:
    """Every output tensor: the embedding, the layers in order, the head."""
    architecture = architecture_of(recipe.model_type)
    parts = [(recipe.embed, None), *((entry, i) for i, entry in enumerate(recipe.layers)), (recipe.head, None)]
    for entry, layer in parts:
        for group in entry.groups:
            for suffix in group.tensors:
                name = suffix if layer is None else architecture.layer_tensor(layer, suffix)
                yield OutputTensor(name, entry, group, suffix)


def output_tensors(
    recipe: ResolvedRecipe, headers: Mapping[str, Header], rows: int | None = None
) -> tuple[TensorInfo, ...]:
    """Name, dtype and shape of every output tensor, in the order of `walk`.

    Args:
        recipe: the candidate.
        headers: headers of its models by weights digest.
        rows: rows of its vocabulary, where that is an aligned one.

    Raises:
        MissingCheckpointError: no header for one of its models, or no rows for its aligned vocabulary.
        ParentsDoNotFitError: a source lacks a tensor, or its shape differs; names the tensor.
    """
    architecture = architecture_of(recipe.model_type)
    shapes = [source_shapes(source, headers) for source in recipe.sources]
    if recipe.vocabulary is not None:
        aligned = _rows(recipe, rows)
        shapes = [
            {name: (aligned, *shape[1:]) if name in architecture.vocabulary else shape for name, shape in own.items()}
            for own in shapes
        ]
    dtype = SAVE_DTYPES[recipe.save_dtype]
    return tuple(
        TensorInfo(name=tensor.name, dtype=dtype, shape=_shape(tensor, architecture, shapes)) for tensor in walk(recipe)
    )


def source_shapes(source: ResolvedSource, headers: Mapping[str, Header]) -> Mapping[str, Shape]:
    """Shape by tensor name of an ingredient; errors as in `output_tensors`."""
    if source.recipe is not None:
        return {tensor.name: tensor.shape for tensor in output_tensors(source.recipe, headers)}
    return _header(source.source_digest, headers).shapes


def output_config(recipe: ResolvedRecipe, headers: Mapping[str, Header], rows: int | None = None) -> dict[str, Any]:
    """The candidate's `config.json`, made to open in transformers 4 and 5 alike.

    It is the config of the tokenizer's donor (token ids belong to the vocabulary), with the depth, the values per
    layer, the dtype, the vocabulary's rows and the tying of the embeddings that the candidate has. Arguments and errors
    as in `output_tensors`; also:

    Raises:
        ParentsDoNotFitError: sources of one layer that attend in different ways.
    """
    architecture = architecture_of(recipe.model_type)
    donor = _donor(recipe, headers)
    config = {key: value for key, value in donor.config_dict.items() if key not in PROVENANCE_KEYS}
    names = {tensor.name for tensor in walk(recipe)}
    config["dtype"] = config["torch_dtype"] = recipe.save_dtype
    if recipe.vocabulary is not None:
        config["vocab_size"] = _rows(recipe, rows)
    if not architecture.known:
        return config
    config["architectures"] = [architecture.classes[0]]
    config[architecture.layers_key] = len(recipe.layers)
    config["tie_word_embeddings"] = architecture.output not in names
    if architecture.layer_types is not None:
        stack_kinds(recipe, headers)
        kinds = [_layer_type(recipe, entry, architecture.layer_types, headers) for entry in recipe.layers]
        if None in kinds:
            config.pop("layer_types", None)
        else:
            config["layer_types"] = kinds
    return in_both_forms(config, architecture)


def stack_kinds(recipe: ResolvedRecipe, headers: Mapping[str, Header]) -> tuple[str, ...]:
    """The kind of attention of every layer of the candidate.

    Raises:
        MissingCheckpointError: no header for one of its models.
        ParentsDoNotFitError: sources of one layer that attend in different ways.
    """
    kinds = [
        attention_kinds(_header(source.source_digest, headers))
        if source.recipe is None
        else stack_kinds(source.recipe, headers)
        for source in recipe.sources
    ]
    check_attention(recipe.layers, [(s.source_digest, own) for s, own in zip(recipe.sources, kinds, strict=True)])
    return tuple(kinds[entry.sources[0][0]][entry.sources[0][1]] for entry in recipe.layers)


def _rows(recipe: ResolvedRecipe, rows: int | None) -> int:
    if rows is None:
        raise MissingCheckpointError(
            f"the recipe aligns vocabularies ({recipe.tokenizer_digest!r}): open its tokenizers to count the rows"
        )
    return rows


def _shape(tensor: OutputTensor, architecture: Architecture, shapes: list[Mapping[str, Shape]]) -> Shape:
    found: list[Shape] = []
    for position, (source, _) in enumerate(tensor.entry.sources):
        name = tensor.source_name(position, architecture)
        if name not in shapes[source]:
            raise ParentsDoNotFitError(
                f"every source must have tensor {name!r}, but source {source!r} has not: use fine-tunes of one base",
                where=tensor.name,
            )
        found.append(shapes[source][name])
    if len(set(found)) > 1:
        raise ParentsDoNotFitError(
            f"tensor {tensor.name!r} must have one shape, but its sources have {found!r}: use fine-tunes of one base",
            where=tensor.name,
        )
    return found[0]


def _header(digest: str, headers: Mapping[str, Header]) -> Header:
    if digest not in headers:
        raise MissingCheckpointError(f"the recipe needs the model with weights {digest!r}: register it first")
    return headers[digest]


def _donor(recipe: ResolvedRecipe, headers: Mapping[str, Header]) -> Header:
    """The header of the model whose tokenizer the candidate takes."""
    source = recipe.sources[recipe.tokenizer]
    return _donor(source.recipe, headers) if source.recipe is not None else _header(source.source_digest, headers)


def _layer_type(recipe: ResolvedRecipe, entry: Entry, types: LayerTypes, headers: Mapping[str, Header]) -> str | None:
    """The kind of attention that the entry's first source has at its layer; None where its layers are all alike."""
    position, layer = entry.sources[0]
    source = recipe.sources[position]
    if source.recipe is not None:
        return _layer_type(source.recipe, source.recipe.layers[layer], types, headers)
    return types.of(_header(source.source_digest, headers).config_dict, layer)
