"""`huarizo merge`: one recipe into one checkpoint, on this machine, without any service."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import yaml

from core.catalog import catalog
from core.errors import ConflictError, InvalidInputError, RecipeError
from core.jobs import HUB_REF, LOCAL_REF
from core.recipe.short import Recipe
from core.settings import Settings
from huarizo.cli.console import print_json, say
from huarizo.cli.relay import relay
from huarizo.service.places import Places, code_environment


def merge(recipe: Path, target: Path, *, as_json: bool = False) -> None:
    """Check the recipe, then run the merging room in a process of its own.

    Raises:
        InvalidInputError: the recipe breaks a rule.
        ConflictError: `target` holds something already.
        HuarizoError: what the merge itself reports.
    """
    check_recipe(read_recipe(recipe))
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConflictError(f"a checkpoint goes into a new or empty folder, but {str(target)!r} is not: name another")
    argv = [sys.executable, "-m", "workers.runner.merge", str(recipe.absolute()), str(target.absolute())]
    end = relay([*argv, "--json-progress"], environment=_environment(recipe), title="merge")
    if as_json:
        print_json(
            {**{name: value for name, value in end.items() if name != "event"}, "folder": str(target.absolute())}
        )
    else:
        say(f"{target}: weights {end.get('weights_digest')}")


def read_recipe(path: Path) -> Recipe:
    """Read a recipe in its short form, YAML or JSON (which is YAML, too).

    Raises:
        InvalidInputError: no YAML, or no mapping.
        pydantic.ValidationError: a field breaks a rule.
    """
    try:
        value: Any = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"a recipe is YAML or JSON, but {str(path)!r} is neither: {error}") from error
    if not isinstance(value, dict):
        raise InvalidInputError(f"a recipe is a mapping, but {str(path)!r} holds a {type(value).__name__}")
    return Recipe.model_validate(value)


def check_recipe(recipe: Recipe) -> None:
    """Check names against the catalogue, and that every model is a reference.

    Raises:
        UnknownMethodError, UnknownLayoutError: with suggestions.
        RecipeError: a model that is neither `local:` nor `hub:`.
    """
    if recipe.merge is not None:
        catalog().method(recipe.merge.method)
    if recipe.layout is not None:
        catalog().layout(recipe.layout.preset)
    for part in recipe.slices or ():
        catalog().method(part.method)
    for source in recipe.sources:
        if source.recipe is not None:
            check_recipe(source.recipe)
        elif not LOCAL_REF.match(source.model or "") and not HUB_REF.match(source.model or ""):
            raise RecipeError(
                f"without a service a model is local:<path> or hub:<org>/<name>@<commit>, but got {source.model!r}",
                where=f"sources.{source.name}",
            )


def _environment(recipe: Path) -> dict[str, str]:
    """Whoever merges here may read here: the working folder and the recipe's folder are model roots, too."""
    places = Places.of(Settings())
    roots = dict.fromkeys([Path.cwd(), recipe.absolute().parent, *places.model_roots])
    return {
        **os.environ,
        **code_environment(),
        **places.environment(),
        "HUARIZO_MODEL_ROOTS": os.pathsep.join(map(str, roots)),
    }
