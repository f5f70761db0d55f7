"""Names for people: which of a recipe's sources each resolved source is."""

from __future__ import annotations

from collections.abc import Mapping

from core.recipe.resolved import ResolvedRecipe, ResolvedSource
from core.recipe.short import Recipe, Source


def source_names(recipe: Recipe, resolved: ResolvedRecipe, digests: Mapping[str, str]) -> tuple[str, ...]:
    """A name for each of the resolved sources, which leave out what the recipe declares but does not use.

    Args:
        recipe: the short form.
        resolved: what it resolves to; its sources keep the order in which the recipe declares them.
        digests: weights digests of models by the names that the recipe's sources use; a model without one fits any.
    """
    declared, names = list(recipe.sources), []
    for position, source in enumerate(resolved.sources):
        spare = len(declared) - (len(resolved.sources) - position)
        while spare > 0 and not _may_be(declared[0], source, digests):
            declared.pop(0)
            spare -= 1
        names.append(declared.pop(0).name)
    return tuple(names)


def _may_be(declared: Source, source: ResolvedSource, digests: Mapping[str, str]) -> bool:
    if declared.model is None or source.weights is None:
        return declared.model is None and source.weights is None
    if declared.adapter is not None:
        return source.adapter is not None
    return digests.get(declared.model, source.source_digest) == source.source_digest
