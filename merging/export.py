"""Writing a candidate to disk as a checkpoint that transformers 4 and 5 both open.

Tensors are computed one at a time; those before are written meanwhile.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.checkpoint import INDEX, check_inside, combine_digests
from core.durable import sync_file, sync_folder
from core.errors import ConflictError, DiskFullError, InvalidInputError, OutOfMemoryError
from core.model import TensorInfo
from core.recipe.output import output_config, output_tensors
from core.recipe.resolved import ResolvedRecipe
from merging.compute import compute, peak_bytes
from merging.memory import fits
from merging.plan import TensorPlan, plan
from merging.shards import ExportedFile, cut, index_text, tensor_size
from merging.sources import Parents, tensor_bytes
from merging.stream import ShardStream
from merging.tokenizer_files import copy_tokenizer, read_object
from merging.vocabulary import Vocabularies

#: Called with the number of tensors written and the number of all; may raise to stop the export.
Progress = Callable[[int, int], None]
#: Bytes that may wait to be written unless `max_memory` is narrower.
WAITING_BYTES = 1 << 28
GENERATION_CONFIG = "generation_config.json"
#: What systems answer where a disk, or somebody's share of it, is full.
FULL = (errno.ENOSPC, errno.EDQUOT)
#: What they answer where no folder can be made, however often one tries.
UNMAKEABLE = (
    errno.ENOTDIR,
    errno.ENOENT,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.EINVAL,
)
TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


@dataclass(frozen=True)
class ExportInfo:
    """What an export wrote.

    Attributes:
        files: every file, sorted by name.
        weights_digest: as `core.model.Model.weights_digest`.
        parameters: number of weights (a shared layer counts under each of its indices).
    """

    files: tuple[ExportedFile, ...]
    weights_digest: str
    parameters: int


#: Called with the folder, before it gets its name, and with what was written; may add files, or raise.
Finish = Callable[[Path, ExportInfo], None]


def export(
    recipe: ResolvedRecipe,
    parents: Parents,
    out: Path,
    *,
    max_shard_bytes: int = 5 * 2**30,
    tokenizer_folder: Path,
    roots: Sequence[Path] = (),
    progress: Progress | None = None,
    max_memory: int | None = None,
    finish: Finish | None = None,
) -> ExportInfo:
    """Write the candidate to the folder `out`, which appears complete or not at all.

    Args:
        recipe: the candidate.
        parents: its open checkpoints.
        out: the folder to make; until it is complete it is called `.<name>.partial-` and 16 hexadecimal digits.
        max_shard_bytes: weights files are cut at this size.
        tokenizer_folder: the checkpoint whose tokenizer and generation config are copied.
        roots: where links among those files may end, besides that folder.
        progress: told after every tensor.
        max_memory: bytes the arithmetic and what waits to be written may hold at once besides what the parents keep.
        finish: called last; the files it adds belong to the folder, although the result does not list them.

    Raises:
        ConflictError: `out` exists, or somebody else made it meanwhile.
        InvalidInputError: no folder can be made there.
        PathNotAllowedError: a file of `tokenizer_folder` links to elsewhere.
        CheckpointError: a config of `tokenizer_folder` is no JSON object.
        DiskFullError: no space is left for it.
        OutOfMemoryError: one of its tensors needs more than `max_memory`, or more than there is.
        NonFiniteWeightsError, NonFiniteCheckpointError: a tensor holds NaN or infinity; names it.
    """
    if os.path.lexists(out):
        raise _taken(out)
    check_inside(tokenizer_folder, roots)
    vocabularies = Vocabularies(parents)
    plans = plan(recipe, parents.headers, vocabularies.align(recipe))
    waiting_bytes = _waiting_bytes(plans, parents, max_memory)
    partial = _make_partial(out)
    try:
        info = _write(
            recipe, plans, vocabularies, partial, max_shard_bytes, waiting_bytes, tokenizer_folder, roots, progress
        )
        if finish is not None:
            finish(partial, info)
        sync_folder(partial)
        _rename(partial, out)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        if error.errno in FULL:
            raise _full(out) from error
        raise
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    sync_folder(out.parent)
    return info


def _make_partial(out: Path) -> Path:
    """A folder beside `out` that no other export has."""
    partial = out.with_name(f".{out.name}.partial-{secrets.token_hex(8)}")
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        if error.errno in FULL:
            raise _full(out) from error
        if error.errno in UNMAKEABLE:
            raise InvalidInputError(
                f"an export makes its own folder, but {str(out)!r} cannot be made ({error.strerror}): "
                "choose another place"
            ) from error
        raise
    return partial


def _rename(partial: Path, out: Path) -> None:
    try:
        os.rename(partial, out)
    except OSError as error:
        if os.path.lexists(out):
            raise _taken(out) from error
        raise


def _taken(out: Path) -> ConflictError:
    return ConflictError(f"an export makes its own folder, but {str(out)!r} exists: choose another name")


def _full(out: Path) -> DiskFullError:
    return DiskFullError(f"no space is left for {str(out)!r}: free some or choose another disk")


def _write(
    recipe: ResolvedRecipe,
    plans: tuple[TensorPlan, ...],
    vocabularies: Vocabularies,
    folder: Path,
    max_shard_bytes: int,
    waiting_bytes: int,
    tokenizer_folder: Path,
    roots: Sequence[Path],
    progress: Progress | None,
) -> ExportInfo:
    parents, alignment = vocabularies.parents, vocabularies.align(recipe)
    rows = None if alignment is None else alignment.rows
    tensors = output_tensors(recipe, parents.headers, rows)
    _check_space(tensors, folder)
    config = output_config(recipe, parents.headers, rows)
    _write_json(folder / "config.json", config)
    _write_json(folder / GENERATION_CONFIG, _generation_config(tokenizer_folder, config))
    tokenizer = copy_tokenizer(tokenizer_folder, folder, roots, extended=vocabularies.tokenizer(recipe))
    # A donor that cannot be read shows before the first weight is computed.
    files, digest = _write_weights(plans, tensors, parents, folder, max_shard_bytes, waiting_bytes, progress)
    others = ["config.json", GENERATION_CONFIG, *tokenizer]
    if (folder / INDEX).is_file():
        others.append(INDEX)
    files = [*files, *(_exported(folder / name) for name in others)]
    return ExportInfo(
        files=tuple(sorted(files, key=lambda file: file.name)),
        weights_digest=digest,
        parameters=sum(info.elements for info in tensors),
    )


def _write_weights(
    plans: tuple[TensorPlan, ...],
    tensors: tuple[TensorInfo, ...],
    parents: Parents,
    folder: Path,
    max_shard_bytes: int,
    waiting_bytes: int,
    progress: Progress | None,
) -> tuple[list[ExportedFile], str]:
    """Stream every tensor into its shard; returns the files and the weights digest."""
    by_name = {planned.name: planned for planned in plans}
    shards = cut(tensors, max_shard_bytes)
    ordered = [info for shard in shards for info in shard]
    with ShardStream(folder, shards, waiting_bytes) as stream:
        for number, info in enumerate(ordered, 1):
            with fits(f"tensor {info.name!r}", parents.device):
                data = tensor_bytes(compute(by_name[info.name], parents, keep=False))
            stream.put(data)
            del data
            if progress is not None:
                progress(number, len(tensors))
    if len(shards) > 1:
        (folder / INDEX).write_text(index_text(shards), encoding="utf-8")
    entries = [(info.name, info.dtype, info.shape, sha) for info, sha in zip(ordered, stream.digests, strict=True)]
    return stream.files, combine_digests(entries)


def _waiting_bytes(plans: tuple[TensorPlan, ...], parents: Parents, max_memory: int | None) -> int:
    """How many bytes may wait to be written; refuses before the first byte what cannot fit."""
    if max_memory is None:
        return WAITING_BYTES
    needed, largest = max(((peak_bytes(each, parents), each) for each in plans), key=lambda pair: pair[0])
    if needed > max_memory:
        raise OutOfMemoryError(
            f"an export must stay within max_memory, but tensor {largest.name!r} needs {needed} bytes and it is "
            f"{max_memory!r}: raise it",
            where=largest.name,
        )
    return min(WAITING_BYTES, max_memory - needed)


def _check_space(tensors: Sequence[TensorInfo], out: Path) -> None:
    """Refuse before the first byte what the disk cannot hold."""
    needed = sum(tensor_size(info) for info in tensors)
    free = shutil.disk_usage(out).free
    if needed > free:
        raise DiskFullError(
            f"an export of {needed} bytes needs as much free space, but the disk of {str(out.parent)!r} has {free}: "
            "free some or choose another disk"
        )


def _generation_config(donor: Path, config: dict[str, Any]) -> dict[str, Any]:
    """The donor's own, or one made of the config's token ids."""
    path = donor / GENERATION_CONFIG
    if path.is_file():
        return {key: value for key, value in read_object(path).items() if key != "transformers_version"}
    ids = {key: config[key] for key in TOKEN_IDS if config.get(key) is not None}
    return {"_from_model_config": True, **ids}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def _exported(path: Path) -> ExportedFile:
    sync_file(path)
    data = path.read_bytes()
    return ExportedFile(path.name, len(data), hashlib.sha256(data).hexdigest())
