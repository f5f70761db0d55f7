"""The local verb behind `huarizo merge`: a recipe file becomes a checkpoint, without a service.

    python -m workers.runner.merge recipe.yaml out/ [--json-progress]

The file holds the short form of a recipe; the `model` of each source, and its `adapter`, is a reference
(`local:<path>` or `hub:<org>/<name>`).
Progress and result are JSON lines on standard output: {"event": "progress" | "done" | "error", ...}.
"""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from core.adapters import Adapter, adapter_digest, is_adapter, read_adapter
from core.checkpoint import read_header, weights_digest
from core.errors import RecipeError
from core.model import Model
from core.recipe import Recipe, ResolvedRecipe, resolve
from core.recipe.ingredients import Registered, models_in, names_in
from core.settings import Settings
from merging.adapters import open_parents
from merging.export import ExportInfo, export
from workers.failures import failure_of
from workers.places import link_roots, model_folder
from workers.runner.manifest import write_manifest


def main() -> int:
    """Merge and report; the exit status is 1 after an error."""
    parser = argparse.ArgumentParser(prog="python -m workers.runner.merge")
    parser.add_argument("recipe", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--json-progress", action="store_true", help="report every tensor")
    options = parser.parse_args()
    try:
        report = merge(options.recipe, options.out, say if options.json_progress else None)
    except Exception as error:
        failure = failure_of(error)
        if failure.code == "internal":
            traceback.print_exception(error)
        say({"event": "error", "code": failure.code, "message": failure.message})
        return 1
    say({"event": "done", **report})
    return 0


def say(event: dict[str, Any]) -> None:
    """One JSON line."""
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def merge(file: Path, out: Path, tell: Any = None) -> dict[str, Any]:
    """Build the recipe in `file` into the folder `out`.

    Raises:
        RecipeError: the file is not a recipe.
        HuarizoError: a parent cannot be used, or the recipe cannot be resolved.
    """
    recipe = read_recipe(file)
    settings = _with_working_folder(Settings())
    folders = {ref: model_folder(ref, settings) for ref in names_in(recipe)}
    registered = {ref: _registered(ref, folder) for ref, folder in folders.items()}
    resolved = resolve(recipe, registered)
    models = models_in(recipe, registered)
    if out.is_dir() and not any(out.iterdir()):
        out.rmdir()  # An export makes its own folder.
    info = _export(resolved, models, folders, link_roots(settings), out, tell)
    files = write_manifest(out, _about(recipe, resolved, registered, info))["files"]
    return {"weights_digest": info.weights_digest, "recipe_digest": resolved.digest(), "files": files}


def read_recipe(file: Path) -> Recipe:
    """Parse YAML or JSON.

    Raises:
        RecipeError: not readable, or not a recipe; names the field.
    """
    try:
        parsed = yaml.safe_load(file.read_text(encoding="utf-8"))
        return Recipe.model_validate(parsed)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"a recipe must be a YAML or JSON file, but {file.name!r} is not: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RecipeError(f"{file.name!r} is not a recipe: {where}: {first['msg']}", where=where) from error


def _registered(ref: str, folder: Path) -> Model | Adapter:
    if is_adapter(folder):
        header = read_adapter(folder)
        return Adapter(name=ref, ref=ref, weights_digest=adapter_digest(folder, header), header=header)
    return Model(name=ref, ref=ref, weights_digest=weights_digest(folder), header=read_header(folder))


def _with_working_folder(settings: Settings) -> Settings:
    """A local verb may read what its user can: paths are looked up from the working folder, absolute ones from `/`."""
    return settings.model_copy(update={"model_roots": (*settings.model_roots, Path.cwd(), Path("/"))})


def _export(
    resolved: ResolvedRecipe,
    models: Mapping[str, Model],
    folders: dict[str, Path],
    roots: tuple[Path, ...],
    out: Path,
    tell: Any,
) -> ExportInfo:
    parents = open_parents(models.values(), folders.__getitem__)
    donor = folders[models[resolved.tokenizer_donor()].ref]

    def progress(done: int, total: int) -> None:
        if tell is not None:
            tell({"event": "progress", "done": done, "total": total})

    return export(resolved, parents, out, tokenizer_folder=donor, roots=roots, progress=progress)


def _about(recipe: Recipe, resolved: ResolvedRecipe, registered: Registered, info: ExportInfo) -> dict[str, Any]:
    return {
        "format": 1,
        "recipe_digest": resolved.digest(),
        "weights_digest": info.weights_digest,
        "parameters": info.parameters,
        "recipe": recipe.model_dump(mode="json", exclude_none=True),
        "parents": {ref: parent.weights_digest for ref, parent in registered.items()},
    }


if __name__ == "__main__":
    raise SystemExit(main())
