"""Reading what a checkpoint folder says of itself: safetensors headers, config and tokenizer, with no tensor library.

Only safetensors is ever opened; pickled, GGUF and quantised weights are refused with the way out.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.architectures import architecture_of
from core.errors import (
    CheckpointError,
    MissingCheckpointError,
    PickleCheckpointError,
    QuantisedCheckpointError,
    TruncatedCheckpointError,
)
from core.model import DTYPE_BYTES, Header, TensorInfo
from core.noun import canonical_json, digest_of

#: A header longer than this is refused before it is parsed (safetensors' own limit).
MAX_HEADER_BYTES = 100_000_000
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
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


def read_header(folder: Path) -> Header:
    """The header of a checkpoint.

    Raises:
        MissingCheckpointError: the folder, its config or a shard is absent.
        TruncatedCheckpointError: a file ends early or its header is damaged.
        PickleCheckpointError, QuantisedCheckpointError: weights in a form that is not opened.
        CheckpointError: an architecture or dtype that is not supported.
    """
    config = _read_json(folder / "config.json")
    if config.get("quantization_config"):
        raise QuantisedCheckpointError(
            f"weights must not be quantised, but {folder.name!r} has a quantization_config: dequantise it first"
        )
    architecture = architecture_of(str(config.get("model_type")))
    tensors = tuple(stored.info for stored in stored_tensors(folder))
    embed = next((t for t in tensors if t.name in architecture.embed), None)
    if embed is None:
        raise MissingCheckpointError(f"{folder.name!r} has no tensor {architecture.embed[0]!r}: export it again")
    header = Header(
        model_type=architecture.model_type,
        config=canonical_json(config),
        layers=int(config[architecture.layers_key]),
        vocab_size=embed.shape[0],
        rope_theta=_rope_theta(config),
        tokenizer_digest=tokenizer_digest(folder),
        tokenizer_files=tokenizer_files(folder),
        tensors=tensors,
    )
    _check_complete(header, folder)
    return header


def stored_tensors(folder: Path) -> tuple[StoredTensor, ...]:
    """Every tensor of the checkpoint, sorted by name; errors as in `read_header`."""
    found: dict[str, StoredTensor] = {}
    for file in weight_files(folder):
        for stored in _parse(file):
            if stored.info.name in found:
                raise CheckpointError(
                    f"tensor {stored.info.name!r} lies in two shards of {folder.name!r}: export it again"
                )
            found[stored.info.name] = stored
    return tuple(found[name] for name in sorted(found))


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The safetensors files of a checkpoint, sorted."""
    if not folder.is_dir():
        raise MissingCheckpointError(
            f"a checkpoint must be a folder, but there is none called {folder.name!r}: check the path"
        )
    index = folder / INDEX
    if index.is_file():
        shards = sorted({str(name) for name in dict(_read_json(index).get("weight_map", {})).values()})
        if any(Path(name).name != name for name in shards):
            raise CheckpointError(f"shards must lie beside {INDEX}, but it names {shards!r}: export it again")
        files = tuple(folder / name for name in shards)
    else:
        files = (folder / SINGLE,)
    missing = [file.name for file in files if not file.is_file()]
    if missing or not files:
        raise _absent(folder, missing or [SINGLE])
    return files


def weights_digest(folder: Path, *, visit: Callable[[StoredTensor, memoryview], None] | None = None) -> str:
    """The weights digest: sha256 over sorted (name, dtype, shape, sha256 of bytes); independent of sharding.

    Args:
        folder: the checkpoint.
        visit: called with every tensor and its bytes, for checks that want the same pass.
    """
    return combine_digests(_hashes(folder, visit))


def combine_digests(entries: Iterable[tuple[str, str, tuple[int, ...], str]]) -> str:
    """The weights digest from (name, safetensors dtype, shape, sha256 hex of the bytes) of every tensor."""
    return digest_of([[name, dtype, list(shape), sha] for name, dtype, shape, sha in sorted(entries)])


def tokenizer_digest(folder: Path) -> str | None:
    """sha256 over vocabulary, merges and added tokens; None where the folder has no tokenizer."""
    fast = folder / "tokenizer.json"
    if fast.is_file():
        parsed = _read_json(fast)
        model = parsed.get("model") or {}
        added = [[t.get("id"), t.get("content")] for t in parsed.get("added_tokens") or []]
        return digest_of([model.get("type"), model.get("vocab"), model.get("merges"), added])
    slow = folder / "tokenizer.model"
    return hashlib.sha256(slow.read_bytes()).hexdigest() if slow.is_file() else None


def tokenizer_files(folder: Path) -> str | None:
    """sha256 over every file that shapes how a text is encoded; None where the folder has no tokenizer."""
    found = [name for name in TOKENIZER_FILES if (folder / name).is_file()]
    if not {"tokenizer.json", "tokenizer.model"} & set(found):
        return None
    return digest_of([[name, _tokenizer_content(folder / name)] for name in found])


def _tokenizer_content(file: Path) -> Any:
    """A tokenizer file as far as it shapes an encoding: fine-tunes of one base often differ in chat templates alone."""
    if file.name == "tokenizer_config.json":
        return {key: value for key, value in _read_json(file).items() if key not in COSMETIC_TOKENIZER}
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _hashes(
    folder: Path, visit: Callable[[StoredTensor, memoryview], None] | None
) -> Iterator[tuple[str, str, tuple[int, ...], str]]:
    by_file: dict[Path, list[StoredTensor]] = {}
    for stored in stored_tensors(folder):
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


def _parse(file: Path) -> Iterator[StoredTensor]:
    size = file.stat().st_size
    with file.open("rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        if size < 8 or length > min(size - 8, MAX_HEADER_BYTES):
            raise _truncated(file, f"its header needs {length} bytes, but the file has {size}")
        try:
            entries: dict[str, Any] = json.loads(handle.read(length))
        except ValueError:
            raise _truncated(file, "its header is not JSON") from None
    start = 8 + length
    for name, entry in entries.items():
        if name == "__metadata__":
            continue
        yield _stored(file, name, entry, start, size)


def _stored(file: Path, name: str, entry: Any, start: int, size: int) -> StoredTensor:
    try:
        info = TensorInfo(name=name, dtype=str(entry["dtype"]), shape=tuple(entry["shape"]))
        begin, end = (start + int(offset) for offset in entry["data_offsets"])
    except (KeyError, TypeError, ValueError):
        raise _truncated(file, f"the entry of tensor {name!r} is damaged") from None
    if info.dtype not in DTYPE_BYTES:
        raise QuantisedCheckpointError(
            f"tensor {name!r} must be one of {sorted(DTYPE_BYTES)!r}, but is {info.dtype!r}: dequantise it first",
            where=name,
        )
    if end - begin != info.elements * DTYPE_BYTES[info.dtype]:
        raise _truncated(file, f"tensor {name!r} has {end - begin} bytes for shape {info.shape}")
    if end > size:
        raise _truncated(file, f"tensor {name!r} ends at byte {end}, but the file has {size}")
    return StoredTensor(info, file, begin, end)


def _check_complete(header: Header, folder: Path) -> None:
    """Every layer has the tensors of layer 0, so that nothing is found missing in the middle of a build."""
    wanted = header.layer_suffixes(0)
    for layer in range(header.layers):
        gone = sorted(set(wanted) ^ set(header.layer_suffixes(layer)))
        if gone or not wanted:
            name = header.architecture.layer_tensor(layer, gone[0] if gone else "*")
            raise MissingCheckpointError(f"{folder.name!r} has no tensor {name!r}: export it again", where=name)


def _rope_theta(config: dict[str, Any]) -> float | None:
    nested = config.get("rope_parameters") or {}
    value = config.get("rope_theta", nested.get("rope_theta") if isinstance(nested, dict) else None)
    return float(value) if value is not None else None


def _absent(folder: Path, missing: list[str]) -> CheckpointError:
    names = sorted(path.name for path in folder.iterdir())
    if any(name.endswith((".bin", ".pt", ".pth", ".ckpt")) for name in names):
        return PickleCheckpointError(
            f"weights must be safetensors, but {folder.name!r} has only pickled files: "
            "save it with safe_serialization=True"
        )
    if any(name.endswith(".gguf") for name in names):
        return QuantisedCheckpointError(f"weights must be safetensors, but {folder.name!r} has GGUF: convert it first")
    return MissingCheckpointError(f"{folder.name!r} lacks {missing[0]!r}: copy the whole checkpoint", where=missing[0])


def _truncated(file: Path, reason: str) -> TruncatedCheckpointError:
    return TruncatedCheckpointError(f"{file.name!r} is truncated or damaged: {reason}; copy it again", where=file.name)


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise MissingCheckpointError(
            f"{path.parent.name!r} lacks {path.name!r}: copy the whole checkpoint", where=path.name
        )
    try:
        parsed = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise TruncatedCheckpointError(f"{path.name!r} is not JSON: copy it again", where=path.name) from None
    if not isinstance(parsed, dict):
        raise TruncatedCheckpointError(f"{path.name!r} must be a JSON object: copy it again", where=path.name)
    return parsed
