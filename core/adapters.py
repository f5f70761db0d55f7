"""LoRA adapters: what a PEFT folder says, and the model that one makes of its base, with no tensor library.

An adapter changes some of a model's weights: W' = W + s B A (LoRA, https://arxiv.org/abs/2106.09685), or replaces a
tensor (`modules_to_save`). Nothing here reads a weight; `merging.adapters` computes W'.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from core.adapter_config import WAY_OUT, AdapterConfig, parse_config
from core.checkpoint import INDEX, SINGLE, StoredTensor, combine_digests, file_tensors, hashes, read_json
from core.errors import CheckpointError, MissingCheckpointError, ParentsDoNotFitError, PickleCheckpointError
from core.model import Header, Model, TensorInfo
from core.noun import Noun, digest_of

CONFIG, WEIGHTS, PICKLED = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
#: What PEFT puts before the name that a module has in its model.
PREFIX = "base_model.model."
#: Endings of a LoRA's tensors: which factor of which kind of layer they hold.
FACTORS = {
    ".lora_A.weight": ("linear", "a"),
    ".lora_B.weight": ("linear", "b"),
    ".lora_embedding_A": ("embedding", "a"),
    ".lora_embedding_B": ("embedding", "b"),
}
#: Endings of tensors that belong to relatives of LoRA.
FOREIGN = (".lora_magnitude_vector", ".lora_B.bias", ".lora_E", ".lora_ga")


class Change(Noun):
    """What an adapter does to one tensor.

    Attributes:
        module: the module in its model (`model.layers.0.self_attn.q_proj`), or the tensor where it is replaced.
        kind: `linear` and `embedding` add s B A; `whole` replaces.
        a, b: the adapter's tensors A (r, inputs) and B (outputs, r); of an embedding (r, tokens) and (width, r).
        whole: the adapter's tensor that replaces the model's.
        scale: s.
    """

    module: str
    kind: Literal["linear", "embedding", "whole"]
    a: str | None = None
    b: str | None = None
    whole: str | None = None
    scale: float = 1.0

    @property
    def target(self) -> str:
        """Name of the model's tensor, as the model calls it."""
        return self.module if self.kind == "whole" else f"{self.module}.weight"


class AdapterHeader(Noun):
    """What an adapter says of itself: its tensors, sorted by name, and what they do."""

    tensors: tuple[TensorInfo, ...]
    changes: tuple[Change, ...]

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(tensor.elements for tensor in self.tensors)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape by tensor name."""
        return {tensor.name: tensor.shape for tensor in self.tensors}


class Adapter(Noun):
    """A registered adapter.

    Attributes:
        name: name within the registry or the job.
        ref: pinned reference.
        weights_digest: sha256 over its tensors and what it does with them.
        header: its header.
    """

    name: str
    ref: str
    weights_digest: str
    header: AdapterHeader


class AdaptedModel(Model):
    """A model that is a base with an adapter.

    Its reference is the base's; its weights digest names base and adapter; the tensors that the adapter adds to are
    float32, whatever the base's dtype, because nothing is rounded in between.
    """

    base: Model
    adapter: Adapter


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter, and no whole model besides."""
    return (folder / CONFIG).is_file() and not any((folder / name).is_file() for name in (SINGLE, INDEX))


def read_adapter(folder: Path) -> AdapterHeader:
    """The header of an adapter.

    Raises:
        MissingCheckpointError, TruncatedCheckpointError, PickleCheckpointError: its files cannot be used.
        CheckpointError: an adapter that is not a plain LoRA; says what it has besides.
    """
    config = parse_config(read_json(folder / CONFIG))
    tensors = {stored.info.name: stored.info for stored in adapter_tensors(folder)}
    changes = tuple(_changes(tensors, config))
    if not changes:
        raise CheckpointError(f"the adapter {folder.name!r} changes nothing: save it again")
    return AdapterHeader(tensors=tuple(tensors.values()), changes=changes)


def adapter_tensors(folder: Path) -> tuple[StoredTensor, ...]:
    """Every tensor of the adapter, sorted by name; errors as in `read_adapter`."""
    file = folder / WEIGHTS
    if not file.is_file():
        if (folder / PICKLED).is_file():
            raise PickleCheckpointError(
                f"weights must be safetensors, but the adapter {folder.name!r} has only {PICKLED!r}: "
                "save it with safe_serialization=True"
            )
        raise MissingCheckpointError(f"the adapter {folder.name!r} lacks {WEIGHTS!r}: copy it whole", where=WEIGHTS)
    return tuple(sorted(file_tensors(file), key=lambda stored: stored.info.name))


def adapter_digest(
    folder: Path, header: AdapterHeader, *, visit: Callable[[StoredTensor, memoryview], None] | None = None
) -> str:
    """The adapter's weights digest; `visit` sees every tensor and its bytes."""
    weights = combine_digests(hashes(adapter_tensors(folder), visit))
    return digest_of([weights, [change.model_dump(mode="json") for change in header.changes]])


def adapted_digest(base: str, adapter: str) -> str:
    """The digest that keys randomness and caches of a base with an adapter, from their weights digests."""
    return digest_of({"base": base, "adapter": adapter})


def adapt(base: Model, adapter: Adapter, *, name: str | None = None) -> AdaptedModel:
    """The model that the adapter makes of its base.

    Args:
        base: the model.
        adapter: the adapter.
        name: what the result is called; by default after both.

    Raises:
        CheckpointError: the base is an adapted model itself.
        ParentsDoNotFitError: the adapter was made for another model; names the tensor.
    """
    if isinstance(base, AdaptedModel):
        raise CheckpointError(
            f"an adapter needs a plain model, but {base.name!r} has the adapter {base.adapter.name!r} already: "
            "merge them with a recipe"
        )
    changed = {info.name: info for info in _changed(base.header, adapter)}
    tensors = tuple(changed.get(info.name, info) for info in base.header.tensors)
    return AdaptedModel(
        name=name or f"{base.name}+{adapter.name}",
        ref=base.ref,
        weights_digest=adapted_digest(base.weights_digest, adapter.weights_digest),
        header=base.header.evolve(tensors=tensors),
        base=base,
        adapter=adapter,
    )


def parts_of(model: Model) -> tuple[Model | Adapter, ...]:
    """What is registered of a model: itself, or its base and its adapter."""
    return (model.base, model.adapter) if isinstance(model, AdaptedModel) else (model,)


def changes_by_tensor(base: Header, adapter: AdapterHeader) -> dict[str, tuple[Change, ...]]:
    """What happens to which of the base's tensors, in the order it happens (replaced first).

    Raises:
        ParentsDoNotFitError: the base has no such tensor.
    """
    names = {info.name for info in base.tensors}
    found: dict[str, list[Change]] = {}
    for change in adapter.changes:
        name = base.architecture.canonical(change.target)
        _check_tying(base, name, change)
        if name not in names:
            raise ParentsDoNotFitError(
                f"the adapter changes {change.target!r}, which its base has not: name the model it was trained on",
                where=change.target,
            )
        found.setdefault(str(name), []).append(change)
    return {name: tuple(sorted(several, key=lambda c: c.kind != "whole")) for name, several in found.items()}


def transposes(base: Header, tensor: str, change: Change) -> bool:
    """Whether (B A) is to be transposed: the base holds this matrix as (inputs, outputs), or it is an embedding."""
    return change.kind == "embedding" or base.architecture.inputs_first(tensor)


def _changes(tensors: Mapping[str, TensorInfo], config: AdapterConfig) -> Iterator[Change]:
    factors: dict[tuple[str, Any], dict[str, str]] = {}
    for name in tensors:
        path = name.removeprefix(PREFIX)
        ending = next((ending for ending in FACTORS if path.endswith(ending)), None)
        foreign = next((part for part in FOREIGN if part in path), None)
        if foreign is not None or (ending is None and ".lora_" in path):
            raise CheckpointError(f"an adapter must be a plain LoRA, but has {name!r}: {WAY_OUT}", where=name)
        if ending is None:
            yield Change(module=path.replace(".base_layer.", "."), kind="whole", whole=name)
        else:
            kind, factor = FACTORS[ending]
            factors.setdefault((path.removesuffix(ending), kind), {})[factor] = name
    for (module, kind), pair in sorted(factors.items()):
        yield _product(module, kind, pair, tensors, config)


def _product(
    module: str,
    kind: Literal["linear", "embedding"],
    pair: Mapping[str, str],
    tensors: Mapping[str, TensorInfo],
    config: AdapterConfig,
) -> Change:
    """The change s B A, once both factors are there and of the rank that the config says."""
    if len(pair) < 2:
        raise MissingCheckpointError(f"the adapter has only one of A and B of {module!r}: save it again", where=module)
    a, b = tensors[pair["a"]], tensors[pair["b"]]
    rank = config.rank(module)
    if len(a.shape) != 2 or len(b.shape) != 2 or a.shape[0] != rank or b.shape[1] != rank:
        raise CheckpointError(
            f"A and B of {module!r} must be matrices of rank {rank}, as {CONFIG} says, but have shapes {a.shape} and "
            f"{b.shape}: save it again",
            where=module,
        )
    return Change(module=module, kind=kind, a=a.name, b=b.name, scale=config.scale(module))


def _changed(base: Header, adapter: Adapter) -> Iterator[TensorInfo]:
    """The base's tensors as the adapter leaves them."""
    infos, mine = {info.name: info for info in base.tensors}, {t.name: t for t in adapter.header.tensors}
    for name, changes in changes_by_tensor(base, adapter.header).items():
        dtype = "F32"
        for change in changes:
            shape = _shape(base, name, change, mine)
            if shape != infos[name].shape:
                raise ParentsDoNotFitError(
                    f"{adapter.name!r} changes {name!r} as if it had shape {shape}, but it has {infos[name].shape}: "
                    "name the model it was trained on; where it was given new tokens, " + WAY_OUT,
                    where=name,
                )
        if len(changes) == 1 and changes[0].whole is not None:
            dtype = mine[changes[0].whole].dtype
        yield infos[name].evolve(dtype=dtype)


def _shape(base: Header, name: str, change: Change, mine: Mapping[str, TensorInfo]) -> tuple[int, ...]:
    if change.whole is not None:
        return mine[change.whole].shape
    outputs, inputs = mine[str(change.b)].shape[0], mine[str(change.a)].shape[1]
    return (inputs, outputs) if transposes(base, name, change) else (outputs, inputs)


def _check_tying(base: Header, name: str | None, change: Change) -> None:
    """Where the output matrix is the embedding, to change one of them would be to part them."""
    family = base.architecture
    if name in (*family.embed[:1], family.output) and family.is_tied(base.config_dict):
        raise ParentsDoNotFitError(
            f"the adapter changes {change.target!r}, but its base uses one matrix as embedding and output: {WAY_OUT}",
            where=change.target,
        )
