"""Reading what a checkpoint folder says of itself: safetensors headers, config and tokenizer, with no tensor library.

Only safetensors is ever opened; pickled, GGUF and quantised weights are refused with the way out.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os.path
import reprlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeGuard

from core.architectures import Architecture, architecture_of
from core.config_fields import check_config
from core.errors import (
    CheckpointError,
    MissingCheckpointError,
    PathNotAllowedError,
    PickleCheckpointError,
    QuantisedCheckpointError,
    TruncatedCheckpointError,
)
from core.meaning import rope_theta
from core.model import DTYPE_BYTES, Header, TensorInfo
from core.noun import canonical_json, digest_of
from core.segmentation import segmentation

#: A header longer than this is refused before it is parsed (safetensors' own limit).
MAX_HEADER_BYTES = 100_000_000
#: For files that stand alone.
NO_FAMILY = Architecture(model_type="none")
#: Bytes compared at a time.
_PIECE_BYTES = 1 << 24
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
DEQUANTISE = "use the model it was made from, or open it in transformers, call dequantize() and save that"
#: Keys of `tokenizer_config.json` that no encoding depends on.
COSMETIC_TOKENIZER = frozenset({"chat_template", "name_or_path", "tokenizer_file", "transformers_version"})
#: Files that shape how a text is encoded.
TOKENIZER_FILES = (
    "added_tokens.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
)


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where a tensor's bytes lie: absolute offsets into one safetensors file."""

    info: TensorInfo
    file: Path
    start: int
    stop: int


def check_inside(folder: Path, allowed_roots: Sequence[Path] = ()) -> None:
    """Check that no file of a checkpoint is a link to a place that whoever wrote the folder may not read.

    What is read of a checkpoint comes out again in exports and messages, so a link counts as what it leads to.

    Args:
        folder: the checkpoint; one that is not there has no files.
        allowed_roots: folders under which links may end, besides the checkpoint's own real folder. The files of a hub
            snapshot are links into the hub's cache.

    Raises:
        PathNotAllowedError: names the file.
    """
    if not folder.is_dir():
        return
    homes = [folder.resolve(), *(root.expanduser().resolve() for root in allowed_roots)]
    for file in sorted(folder.iterdir()):
        if file.is_symlink() and not _ends_under(file, homes):
            raise PathNotAllowedError(
                f"files of a checkpoint must lie in its folder or under a model root, but {file.name!r} is a link to "
                "elsewhere: copy the file",
                where=file.name,
            )


def read_header(folder: Path) -> Header:
    """The header of a checkpoint.

    Raises:
        MissingCheckpointError: the folder, its config or a shard is absent.
        TruncatedCheckpointError: a file ends early or its header is damaged.
        PickleCheckpointError, QuantisedCheckpointError: weights in a form that is not opened.
        CheckpointError: an architecture or dtype that is not supported, or a field of the config that is damaged.
    """
    if not (folder / "config.json").is_file():
        raise _absent(folder, ["config.json"])
    config = read_json(folder / "config.json")
    odd = next((key for key in ("quantization_config", "compression_config") if config.get(key)), None)
    if odd is not None:
        raise QuantisedCheckpointError(
            f"weights must not be quantised, but {folder.name!r} has a {odd}: {DEQUANTISE}", where=odd
        )
    architecture = architecture_of(config.get("model_type"))
    check_config(config, architecture)
    tensors = tuple(stored.info for stored in stored_tensors(folder))
    vocabulary, rules = _tokenizer_digests(folder)
    header = Header(
        model_type=architecture.model_type,
        config=canonical_json(config),
        layers=config[architecture.layers_key] if architecture.known else 0,
        vocab_size=_vocabulary(tensors, config, architecture, folder),
        rope_theta=rope_theta(config, architecture),
        tokenizer_digest=vocabulary,
        tokenizer_rules=rules,
        tokenizer_files=tokenizer_files(folder),
        tensors=tensors,
    )
    _check_complete(header, folder)
    return header


def stored_tensors(folder: Path) -> tuple[StoredTensor, ...]:
    """Every weight of the checkpoint under the name its family gives it, sorted by name; errors as in `read_header`.

    Left out are buffers that follow from the config (see `core.architectures.Architecture.ignored`), and an output
    matrix that the config ties to the embedding and that holds the same bytes: transformers ties it again.
    """
    config = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    architecture = architecture_of(config["model_type"]) if "model_type" in config else NO_FAMILY
    found: dict[str, StoredTensor] = {}
    for file in weight_files(folder):
        for stored in file_tensors(file, architecture):
            if stored.info.name in found:
                raise CheckpointError(
                    f"tensor {stored.info.name!r} lies in two shards of {folder.name!r}: export it again"
                )
            found[stored.info.name] = stored
    embed, output = (found.get(name or "") for name in (next(iter(architecture.embed), None), architecture.output))
    if embed is not None and output is not None and architecture.is_tied(config) and _same_bytes(embed, output):
        del found[output.info.name]
    return tuple(found[name] for name in sorted(found))


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The safetensors files of a checkpoint, sorted."""
    if not folder.is_dir():
        raise _absent(folder, [SINGLE])
    index = folder / INDEX
    if index.is_file():
        weight_map = read_json(index).get("weight_map", {})
        if not isinstance(weight_map, dict):
            raise _damaged(index, "its weight_map is no object")
        shards = sorted({str(name) for name in weight_map.values()})
        odd = next((name for name in shards if Path(name).name != name), None)
        if odd is not None:
            raise CheckpointError(f"shards must lie beside {INDEX}, but it names {odd!r}: export it again")
        files = tuple(folder / name for name in shards)
    else:
        files = (folder / SINGLE,)
    # Unlike Path.is_file, this answers no to a name that no file system can hold.
    missing = [file.name for file in files if not os.path.isfile(file)]
    if missing or not files:
        raise _absent(folder, missing or [SINGLE])
    return files


def weights_digest(folder: Path, *, visit: Callable[[StoredTensor, memoryview], None] | None = None) -> str:
    """The weights digest: sha256 over sorted (name, dtype, shape, sha256 of bytes); independent of sharding.

    Args:
        folder: the checkpoint.
        visit: called with every tensor and its bytes, for checks that want the same pass.
    """
    return combine_digests(hashes(stored_tensors(folder), visit))


def combine_digests(entries: Iterable[tuple[str, str, tuple[int, ...], str]]) -> str:
    """The weights digest from (name, safetensors dtype, shape, sha256 hex of the bytes) of every tensor."""
    return digest_of([[name, dtype, list(shape), sha] for name, dtype, shape, sha in sorted(entries)])


def tokenizer_digest(folder: Path) -> str | None:
    """sha256 over vocabulary, merges and added tokens; None where the folder has no tokenizer."""
    return _tokenizer_digests(folder)[0]


def _tokenizer_digests(folder: Path) -> tuple[str | None, str | None]:
    """`tokenizer_digest`, and sha256 over how a text is cut, which only a `tokenizer.json` says."""
    fast = folder / "tokenizer.json"
    if fast.is_file():
        parsed = read_json(fast)
        model, added_tokens = parsed.get("model") or {}, parsed.get("added_tokens") or []
        if not isinstance(model, dict) or not _objects(added_tokens):
            raise _damaged(fast, "its model or its added_tokens are of another form")
        added = [[t.get("id"), t.get("content")] for t in added_tokens]
        vocabulary = digest_of([model.get("type"), model.get("vocab"), model.get("merges"), added])
        return vocabulary, digest_of(segmentation(parsed))
    slow = folder / "tokenizer.model"
    return (hashlib.sha256(slow.read_bytes()).hexdigest() if slow.is_file() else None), None


def tokenizer_files(folder: Path) -> str | None:
    """sha256 over every file that shapes how a text is encoded; None where the folder has no tokenizer."""
    found = [name for name in TOKENIZER_FILES if (folder / name).is_file()]
    if not {"tokenizer.json", "tokenizer.model"} & set(found):
        return None
    return digest_of([[name, _tokenizer_content(folder / name)] for name in found])


def _tokenizer_content(file: Path) -> Any:
    """A tokenizer file as far as it shapes an encoding: fine-tunes of one base often differ in chat templates alone."""
    if file.name == "tokenizer_config.json":
        return {key: value for key, value in read_json(file).items() if key not in COSMETIC_TOKENIZER}
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _ends_under(link: Path, homes: Sequence[Path]) -> bool:
    try:
        place = link.resolve()
    except (OSError, RuntimeError):  # A loop of links.
        return False
    # From Python 3.13 on a loop resolves to itself.
    return not place.is_symlink() and any(place.is_relative_to(home) for home in homes)


def hashes(
    tensors: Iterable[StoredTensor], visit: Callable[[StoredTensor, memoryview], None] | None = None
) -> Iterator[tuple[str, str, tuple[int, ...], str]]:
    """What `combine_digests` takes: (name, dtype, shape, sha256 of the bytes) of every tensor."""
    by_file: dict[Path, list[StoredTensor]] = {}
    for stored in tensors:
        by_file.setdefault(stored.file, []).append(stored)
    for file, tensors in by_file.items():
        with file.open("rb") as handle:
            # Not closed by hand: a visitor's error may still hold a view, and the last one to go closes the map.
            whole = memoryview(mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ))
        for stored in sorted(tensors, key=lambda t: t.start):
            view = whole[stored.start : stored.stop]
            if visit is not None:
                visit(stored, view)
            yield stored.info.name, stored.info.dtype, stored.info.shape, hashlib.sha256(view).hexdigest()


def file_tensors(file: Path, architecture: Architecture = NO_FAMILY) -> list[StoredTensor]:
    """Every tensor of one safetensors file, in the order of its header.

    Args:
        file: it.
        architecture: the family that names its tensors and says which are no weights; without one, all are kept.

    Raises:
        TruncatedCheckpointError: it ends early or its header is damaged.
        QuantisedCheckpointError: a tensor of integers.
    """
    size = file.stat().st_size
    with file.open("rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        if size < 8 or length > min(size - 8, MAX_HEADER_BYTES):
            raise _damaged(file, f"its header needs {length} bytes, but the file has {size}")
        entries = _parsed(file, handle.read(length), "its header")
    start = 8 + length
    names = {name: architecture.canonical(name) for name in entries if name != "__metadata__"}
    found = [_stored(file, name, entries[name], start, size, weight=names[name] is not None) for name in names]
    _check_tiling(file, found, start, size)
    known = ((names[stored.info.name], stored) for stored in found)
    return [replace(stored, info=stored.info.evolve(name=name)) for name, stored in known if name is not None]


def _stored(file: Path, name: str, entry: Any, start: int, size: int, *, weight: bool) -> StoredTensor:
    shape, offsets = (entry.get("shape"), entry.get("data_offsets")) if isinstance(entry, dict) else (None, None)
    if "\0" in name or not _wholes(shape, 1) or not _wholes(offsets, 0) or len(offsets) != 2:
        raise _damaged(file, f"the entry of tensor {reprlib.repr(name)} is {reprlib.repr(entry)}", name)
    info = TensorInfo(name=name, dtype=str(entry.get("dtype")), shape=tuple(shape))
    begin, end = (start + offset for offset in offsets)
    if weight and info.dtype not in DTYPE_BYTES:
        raise QuantisedCheckpointError(
            f"tensor {name!r} must be one of {sorted(DTYPE_BYTES)!r}, but is {info.dtype!r}: {DEQUANTISE}",
            where=name,
        )
    if weight and end - begin != info.elements * DTYPE_BYTES[info.dtype]:
        raise _damaged(file, f"tensor {name!r} has {end - begin} bytes for shape {info.shape}", name)
    if end > size:
        raise _damaged(file, f"tensor {name!r} ends at byte {end}, but the file has {size}", name)
    return StoredTensor(info, file, begin, end)


def _same_bytes(one: StoredTensor, other: StoredTensor) -> bool:
    if (one.info.dtype, one.info.shape) != (other.info.dtype, other.info.shape):
        return False
    with one.file.open("rb") as left, other.file.open("rb") as right:
        left.seek(one.start)
        right.seek(other.start)
        for done in range(0, one.stop - one.start, _PIECE_BYTES):
            length = min(_PIECE_BYTES, one.stop - one.start - done)
            if left.read(length) != right.read(length):
                return False
    return True


def _check_tiling(file: Path, tensors: list[StoredTensor], start: int, size: int) -> None:
    """Tensors lie one behind the other from the header to the end, as the format has it: no overlap and no gap."""
    place = start
    for stored in sorted(tensors, key=lambda each: each.start):
        if stored.start != place:
            fault = f"tensor {stored.info.name!r} starts at byte {stored.start}, but the one before it ends at {place}"
            raise _damaged(file, fault, stored.info.name)
        place = stored.stop
    if place != size:
        raise _damaged(file, f"its tensors end at byte {place}, but the file has {size}")


def _vocabulary(tensors: Sequence[TensorInfo], config: dict[str, Any], architecture: Architecture, folder: Path) -> int:
    """How many words there are: rows of the embedding, or what the config of a family that is not known says."""
    if not architecture.known:
        inner = config.get("text_config")
        said = config.get("vocab_size", inner.get("vocab_size") if isinstance(inner, dict) else None)
        return said if isinstance(said, int) and 0 < said < 2**31 else 0
    by_name = {tensor.name: tensor for tensor in tensors}
    embed, output = architecture.embed[0], str(architecture.output)
    wanted = (embed,) if architecture.is_tied(config) else (embed, output)
    missing = next((name for name in wanted if name not in by_name), None)
    if missing is not None:
        raise MissingCheckpointError(f"{folder.name!r} has no tensor {missing!r}: export it again", where=missing)
    _check_embedding(by_name[embed], config, architecture)
    return by_name[embed].shape[0]


def _check_embedding(embed: TensorInfo, config: dict[str, Any], architecture: Architecture) -> None:
    """The embedding has a row per word and the width of the stack."""
    fields = ("vocab_size", architecture.width_key)
    if len(embed.shape) != 2:
        raise CheckpointError(f"{embed.name!r} must be a matrix, but has shape {embed.shape}: export it again")
    for field, found in zip(fields, embed.shape, strict=True):
        said = config.get(field)
        if said is not None and said != found:
            raise CheckpointError(
                f"{field!r} of config.json must agree with {embed.name!r}, but they have {said!r} and {found!r}: "
                "export it again",
                where=field,
            )


def _check_complete(header: Header, folder: Path) -> None:
    """Every layer has the tensors of layer 0, so that nothing is found missing in the middle of a build."""
    suffixes: dict[int, set[str]] = {}
    for tensor in header.tensors:
        if place := header.architecture.locate(tensor.name):
            suffixes.setdefault(place[0], set()).add(place[1])
    wanted = suffixes.get(0, set())
    for layer in range(header.layers):
        gone = sorted(wanted ^ suffixes.get(layer, set()))
        if gone or not wanted:
            name = header.architecture.layer_tensor(layer, gone[0] if gone else "*")
            raise MissingCheckpointError(f"{folder.name!r} has no tensor {name!r}: export it again", where=name)


def _absent(folder: Path, missing: list[str]) -> CheckpointError:
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else [folder.name]
    other = other_form(folder.name, names)
    if other is not None:
        return other
    if not folder.is_dir():
        return MissingCheckpointError(f"a checkpoint must be a folder, but {folder.name!r} is none: check the path")
    return MissingCheckpointError(f"{folder.name!r} lacks {missing[0]!r}: copy the whole checkpoint", where=missing[0])


def other_form(model: str, files: Iterable[str]) -> CheckpointError | None:
    """The refusal of weights that are pickled or GGUF, with the way out; None where no file looks so.

    Args:
        model: what people call it.
        files: names of its files.
    """
    endings = {Path(name).suffix.lower() for name in files}
    if endings & {".bin", ".pt", ".pth", ".ckpt"}:
        return PickleCheckpointError(
            f"weights must be safetensors, but {model!r} has only pickled files: save it with safe_serialization=True"
        )
    if ".gguf" in endings:
        return QuantisedCheckpointError(
            f"weights must be safetensors, but {model!r} has GGUF: use the model it was made from, or open it "
            "with from_pretrained(..., gguf_file=...) and save that"
        )
    return None


def _damaged(file: Path, reason: str, where: str | None = None) -> TruncatedCheckpointError:
    return TruncatedCheckpointError(
        f"{file.name!r} is truncated or damaged: {reason}; copy it again", where=where or file.name
    )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a checkpoint.

    Raises:
        MissingCheckpointError, TruncatedCheckpointError: it is not there, or is no object.
    """
    if not path.is_file():
        raise MissingCheckpointError(
            f"{path.parent.name!r} lacks {path.name!r}: copy the whole checkpoint", where=path.name
        )
    return _parsed(path, path.read_bytes(), "it")


def _parsed(file: Path, data: bytes, what: str) -> dict[str, Any]:
    """A JSON object that has a canonical form, so that it can be hashed and stored."""
    try:
        parsed = json.loads(data.decode("utf-8"))
        canonical_json(parsed).encode()
    except (ValueError, RecursionError):  # ValueError also for NaN, half characters and numbers of endless digits.
        raise _damaged(file, f"{what} is not JSON") from None
    if not isinstance(parsed, dict):
        raise _damaged(file, f"{what} must be a JSON object, but is {reprlib.repr(parsed)}")
    return parsed


def _wholes(value: Any, low: int) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(each) is int and each >= low for each in value)


def _objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, dict) for each in value)
