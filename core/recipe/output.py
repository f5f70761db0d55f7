"""What a resolved recipe puts out, told without a tensor library: its tensors, their shapes and its `config.json`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from core.architectures import Architecture, architecture_of
from core.errors import MissingCheckpointError, ParentsDoNotFitError
from core.model import DTYPE_NAMES, Header, TensorInfo
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


def walk(recipe: ResolvedRecipe) -> Iterator[OutputTensor]:
    """Every output tensor: the embedding, the layers in order, the head."""
    architecture = architecture_of(recipe.model_type)
    parts = [(recipe.embed, None), *((entry, i) for i, entry in enumerate(recipe.layers)), (recipe.head, None)]
    for entry, layer in parts:
        for group in entry.groups:
            for suffix in group.tensors:
                name = suffix if layer is None else architecture.layer_tensor(layer, suffix)
                yield OutputTensor(name, entry, group, suffix)


def output_tensors(recipe: ResolvedRecipe, headers: Mapping[str, Header]) -> tuple[TensorInfo, ...]:
    """Name, dtype and shape of every output tensor, in the order of `walk`.

    Args:
        recipe: the candidate.
        headers: headers of its models by weights digest.

    Raises:
        MissingCheckpointError: no header for one of its models.
        ParentsDoNotFitError: a source lacks a tensor, or its shape differs; names the tensor.
    """
    architecture = architecture_of(recipe.model_type)
    shapes = [source_shapes(source, headers) for source in recipe.sources]
    dtype = SAVE_DTYPES[recipe.save_dtype]
    return tuple(
        TensorInfo(name=tensor.name, dtype=dtype, shape=_shape(tensor, architecture, shapes)) for tensor in walk(recipe)
    )


def source_shapes(source: ResolvedSource, headers: Mapping[str, Header]) -> dict[str, Shape]:
    """Shape by tensor name of an ingredient; errors as in `output_tensors`."""
    if source.recipe is not None:
        return {tensor.name: tensor.shape for tensor in output_tensors(source.recipe, headers)}
    return _header(str(source.weights), headers).shapes()


def output_config(recipe: ResolvedRecipe, headers: Mapping[str, Header]) -> dict[str, Any]:
    """The candidate's `config.json`, made to open in transformers 4 and 5 alike.

    It is the config of the tokenizer's donor (token ids belong to the vocabulary), with the depth, the values per
    layer, the dtype and the tying of the embeddings that the candidate has. Errors as in `output_tensors`.
    """
    architecture = architecture_of(recipe.model_type)
    donor = _donor(recipe, headers)
    config = {key: value for key, value in donor.config_dict.items() if key not in PROVENANCE_KEYS}
    names = {tensor.name for tensor in walk(recipe)}
    config["architectures"] = [architecture.classes[0]]
    config[architecture.layers_key] = len(recipe.layers)
    config["tie_word_embeddings"] = "lm_head.weight" not in names
    config["dtype"] = config["torch_dtype"] = recipe.save_dtype
    for key in architecture.per_layer_keys:
        values = [_layer_value(recipe, entry, key, headers) for entry in recipe.layers]
        if None in values:
            config.pop(key, None)
        else:
            config[key] = values
    return _both_rope_forms(config)


def _shape(tensor: OutputTensor, architecture: Architecture, shapes: list[dict[str, Shape]]) -> Shape:
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
    return _donor(source.recipe, headers) if source.recipe is not None else _header(str(source.weights), headers)


def _layer_value(recipe: ResolvedRecipe, entry: Entry, key: str, headers: Mapping[str, Header]) -> Any:
    """The per-layer config value that the entry's first source has at its layer; None where it has none."""
    position, layer = entry.sources[0]
    source = recipe.sources[position]
    if source.recipe is not None:
        return _layer_value(source.recipe, source.recipe.layers[layer], key, headers)
    config = _header(str(source.weights), headers).config_dict
    values = config.get(key)
    if values is not None:
        return values[layer]
    # Qwen2 configs without `layer_types` imply them by depth, which a re-stacked layer must not lose.
    if key == "layer_types" and config.get("use_sliding_window"):
        return "sliding_attention" if layer >= config.get("max_window_layers", 28) else "full_attention"
    return None


def _both_rope_forms(config: dict[str, Any]) -> dict[str, Any]:
    """`rope_theta` and `rope_scaling` (transformers 4) beside `rope_parameters` (transformers 5)."""
    nested = config.get("rope_parameters")
    if not isinstance(nested, dict) or "rope_theta" not in nested:
        return config
    config.setdefault("rope_theta", nested["rope_theta"])
    if nested.get("rope_type", "default") != "default":
        config.setdefault("rope_scaling", {key: value for key, value in nested.items() if key != "rope_theta"})
    return config
