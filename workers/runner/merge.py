"""The local verb behind `huarizo merge`: a recipe file becomes a checkpoint, without a service.

    python -m workers.runner.merge recipe.yaml out/ [--json-progress] [--dry-run] [--to-mergekit] ...

The file holds the short form of a recipe or a mergekit configuration; its models are paths, hub ids or references
(`local:<path>`, `hub:<org>/<name>`). Relative paths start at the working folder, then at the file's own.
Progress and result are JSON lines on standard output: {"event": "progress" | "done" | "error", ...}.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core.adapters import Adapter
from core.errors import CheckpointError, InvalidInputError
from core.mergekit import to_mergekit
from core.model import Model, TensorInfo
from core.recipe import ResolvedRecipe
from core.recipe.ingredients import models_in
from core.recipe.output import output_tensors
from merging.activations import Activations
from merging.adapters import open_parents
from merging.compute import peak_bytes
from merging.export import ExportInfo, Finish, export
from merging.plan import plan
from merging.shards import cut, tensor_size
from merging.sources import Parents
from merging.vocabulary import Vocabularies
from workers.recipe_files import Prepared, Wanted, notes_of, prepare, resolved
from workers.runner.local import reported, say
from workers.runner.manifest import write_manifest

SHARD_BYTES = 5 * 2**30


def main() -> int:
    """Merge and report; the exit status is 1 after an error."""
    options = _parser().parse_args()
    return reported(lambda: _report(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m workers.runner.merge")
    parser.add_argument("recipe", type=Path)
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--json-progress", action="store_true", help="report every tensor")
    parser.add_argument("--format", choices=("auto", "huarizo", "mergekit"), default="auto")
    parser.add_argument("--save-dtype", choices=("float32", "float16", "bfloat16"))
    parser.add_argument("--seed", type=int)
    parser.add_argument("--statistics", type=Path, help="activation statistics, a safetensors file")
    parser.add_argument("--generator", type=Path, action="append", default=[], help="the folder of one; repeatable")
    parser.add_argument("--max-memory", type=int, help="bytes")
    parser.add_argument("--shard-size", type=int, default=SHARD_BYTES, help="bytes")
    parser.add_argument("--dry-run", action="store_true", help="tell what would be made, and make nothing")
    parser.add_argument("--to-mergekit", action="store_true", help="tell the mergekit form, and make nothing")
    return parser


def _report(options: argparse.Namespace) -> dict[str, Any]:
    tell = say if options.json_progress else None
    _check_seed(options.seed)
    looking = options.dry_run or options.to_mergekit or options.out is None
    measured = None if options.statistics is None else Activations(options.statistics)
    wanted = Wanted(options.format, options.save_dtype, options.seed, None if measured is None else measured.digest)
    prepared = prepare(options.recipe, wanted, None if looking else tell, hashed=not looking)
    if measured is not None:
        _check_named(measured, prepared, options.statistics)
    if options.to_mergekit:
        return mergekit_form(prepared)
    if looking:
        return outlook(prepared, options.shard_size)
    limits = {"shard_bytes": options.shard_size, "max_memory": options.max_memory}
    return merge(prepared, options.out, tell, measured=measured, generators=options.generator, **limits)


def _check_seed(seed: int | None) -> None:
    if seed is not None and not 0 <= seed < 2**63:
        raise InvalidInputError(f"a seed must be at least 0 and below 2**63, but is {seed!r}: choose one", where="seed")


def _check_named(measured: Activations, prepared: Prepared, file: Path) -> None:
    """Statistics of another model would change nothing, and nobody would know."""
    known = {info.name for model in prepared.registered.values() for info in _weights(model)}
    if not known & measured.names:
        raise CheckpointError(
            f"activation statistics have vectors under the names of weights, but {file.name!r} names none of this "
            f"recipe's (it has {sorted(measured.names)[:3]!r}): measure them on its base",
            where="statistics",
        )


def _weights(model: Model | Adapter) -> tuple[TensorInfo, ...]:
    return model.header.tensors if isinstance(model, Model) else ()


def merge(
    prepared: Prepared,
    out: Path,
    tell: Any = None,
    *,
    shard_bytes: int = SHARD_BYTES,
    max_memory: int | None = None,
    measured: Activations | None = None,
    generators: Sequence[Path] = (),
) -> dict[str, Any]:
    """Build the recipe into the folder `out`, with the activation statistics and generators at hand, if any.

    Raises:
        HuarizoError: the recipe cannot be resolved, or a tensor of it cannot be made or written.
    """
    recipe = resolved(prepared.recipe, prepared.registered, prepared.folders)
    _clear_empty(out)
    parents = _parents(prepared, generators)
    if measured is not None:
        parents.derive(measured.digest, measured)
    files: list[dict[str, Any]] = []

    def finish(folder: Path, info: ExportInfo) -> None:
        hashes = {file.name: file.sha256 for file in info.files}
        files.extend(write_manifest(folder, _about(prepared, recipe, info), hashes)["files"])

    info = _export(prepared, recipe, parents, out, tell, finish, shard_bytes, max_memory)
    return {
        "weights_digest": info.weights_digest,
        "recipe_digest": recipe.digest(),
        "files": files,
        "notes": notes_of(prepared, recipe),
    }


def _clear_empty(out: Path) -> None:
    """An export makes its own folder: an empty one gives way."""
    try:
        if out.is_dir() and not any(out.iterdir()):
            out.rmdir()
    except OSError as error:
        raise InvalidInputError(
            f"a merge makes its own folder, but {str(out)!r} cannot give way ({error.strerror}): choose another place"
        ) from error


def outlook(prepared: Prepared, shard_bytes: int = SHARD_BYTES) -> dict[str, Any]:
    """What a merge would make and take, without reading a weight; errors as in `merge`."""
    recipe = resolved(prepared.recipe, prepared.registered, prepared.folders)
    headers = {m.weights_digest: m.header for m in models_in(prepared.recipe, prepared.registered).values()}
    parents = _parents(prepared)
    alignment = None if recipe.vocabulary is None else Vocabularies(parents).align(recipe)
    plans = plan(recipe, headers, alignment)
    tensors = output_tensors(recipe, headers, None if alignment is None else alignment.rows)
    peak, largest = max(((peak_bytes(each, parents), each) for each in plans), key=lambda pair: pair[0])
    return {
        "layers": len(recipe.layers),
        "tensors": len(tensors),
        "parameters": sum(info.elements for info in tensors),
        "bytes": sum(tensor_size(info) for info in tensors),
        "shards": len(cut(tensors, shard_bytes)),
        "peak_memory": peak,
        "peak_tensor": largest.name,
        "methods": dict(Counter(planned.method for planned in plans)),
        "models": list(prepared.folders),
        "save_dtype": recipe.save_dtype,
        "notes": notes_of(prepared, recipe),
        "recipe": prepared.recipe.model_dump(mode="json", exclude_none=True),
    }


def mergekit_form(prepared: Prepared) -> dict[str, Any]:
    """The recipe in mergekit's words.

    Raises:
        MergekitError: it says what mergekit cannot.
    """
    depths = {ref: found.header.layers for ref, found in prepared.registered.items() if isinstance(found, Model)}
    form = to_mergekit(prepared.recipe, depths)
    return {"documents": form.documents, "notes": (*prepared.notes, *form.notes)}


def _export(
    prepared: Prepared,
    recipe: ResolvedRecipe,
    parents: Parents,
    out: Path,
    tell: Any,
    finish: Finish,
    shard_bytes: int,
    max_memory: int | None,
) -> ExportInfo:
    models = models_in(prepared.recipe, prepared.registered)
    donor = prepared.folders[models[recipe.tokenizer_donor()].ref]

    def progress(done: int, total: int) -> None:
        if tell is not None:
            tell({"event": "progress", "done": done, "total": total})

    return export(
        recipe,
        parents,
        out,
        max_shard_bytes=shard_bytes,
        tokenizer_folder=donor,
        roots=prepared.roots,
        progress=progress,
        max_memory=max_memory,
        finish=finish,
    )


def _parents(prepared: Prepared, generators: Sequence[Path] = ()) -> Parents:
    models = models_in(prepared.recipe, prepared.registered)
    return open_parents(models.values(), prepared.folders.__getitem__, generators=_by_digest(generators))


def _by_digest(generators: Sequence[Path]) -> dict[str, Path]:
    if not generators:
        return {}
    # diffusers takes seconds to import, and most recipes sample nothing.
    from merging.generation.artifact import digest_at

    return {digest_at(folder): folder for folder in generators}


def _about(prepared: Prepared, recipe: ResolvedRecipe, info: ExportInfo) -> dict[str, Any]:
    return {
        "format": 1,
        "recipe_digest": recipe.digest(),
        "weights_digest": info.weights_digest,
        "parameters": info.parameters,
        "recipe": prepared.recipe.model_dump(mode="json", exclude_none=True),
        "parents": {ref: parent.weights_digest for ref, parent in prepared.registered.items()},
        "notes": notes_of(prepared, recipe),
    }


if __name__ == "__main__":
    raise SystemExit(main())
