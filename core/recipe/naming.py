"""Which of its sources a recipe uses; a resolved recipe has these alone, in the order of declaration."""

from __future__ import annotations

from collections.abc import Mapping

from core.recipe.path import Path
from core.recipe.short import Merge, Recipe


def used_names(recipe: Recipe, depths: Mapping[str, int]) -> tuple[str, ...]:
    """Names of the sources in use, the tokenizer's donor included, in the order in which the recipe declares them.

    They are, one by one, what `ResolvedRecipe.sources` are called.

    Args:
        recipe: the short form; names that it does not declare are passed over.
        depths: layers of the sources of a path; other forms need none.

    Raises:
        LayoutError: as `Path.slots`.
    """
    named = {*_combined(recipe, depths), recipe.donor}
    return tuple(source.name for source in recipe.sources if source.name in named)


def merged_names(recipe: Recipe, merge: Merge) -> tuple[str, ...]:
    """The sources of a merge, the base among them, last unless it is listed."""
    names = merge.sources or tuple(s.name for s in recipe.sources if s.name != merge.base)
    return (*names, merge.base) if merge.base is not None and merge.base not in names else names


def _combined(recipe: Recipe, depths: Mapping[str, int]) -> tuple[str, ...]:
    if recipe.merge is not None:
        return merged_names(recipe, recipe.merge)
    if recipe.layout is not None:
        return (recipe.layout.source,)
    if recipe.path is not None:
        return _passed(recipe.path, depths)
    return tuple(source.source for part in recipe.slices or () for source in part.sources)


def _passed(path: Path, depths: Mapping[str, int]) -> tuple[str, ...]:
    steps = path.steps(depths)
    return (*(name for name, _, _ in steps), path.embed or path.sources[0], path.head or steps[-1][0])
