"""What a recipe says without effect, or with less than it says: no error, for a search may say it of one layout among
many, but worth telling."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from core.draws import LEAST_RADIUS
from core.errors import RadiusLostError
from core.model import Model
from core.recipe.output import walk
from core.recipe.resolved import ResolvedRecipe
from core.recipe.short import Recipe
from core.recipe.values import filters_in


def remarks(recipe: Recipe, resolved: ResolvedRecipe, models: Iterable[Model]) -> tuple[str, ...]:
    """A sentence for each thing that changes nothing, or not as much as it says.

    Args:
        recipe: the short form; recipes in it are not looked into.
        resolved: what it resolves to.
        models: that it is made of.
    """
    return (*_repeats(recipe, resolved), *_draws(recipe, resolved), *_filters(recipe, resolved, models))


def _repeats(recipe: Recipe, resolved: ResolvedRecipe) -> Iterator[str]:
    if recipe.repeated is not None and len({entry.sources for entry in resolved.layers}) == len(resolved.layers):
        yield "`repeated` has no effect: no layer stands in the stack again."


def _draws(recipe: Recipe, resolved: ResolvedRecipe) -> Iterator[str]:
    if recipe.generation is not None and resolved.generation is None:
        yield "`generation` has no effect: its strength, blend, radius, amounts or coefficients are 0."
    draw, least = resolved.generation, LEAST_RADIUS[resolved.save_dtype]
    if draw is not None and draw.rho is not None and draw.rho < least:
        yield (
            f"`{RadiusLostError.code}`: in {resolved.save_dtype} a radius below {least!r} is lost in part, and this "
            f"one is {draw.rho!r}: take a larger `rho`, or a `save_dtype` of float32."
        )


def _filters(recipe: Recipe, resolved: ResolvedRecipe, models: Iterable[Model]) -> Iterator[str]:
    """A filter is looked for in the candidate's names, or in those of a source."""
    wanted = {(name, text): None for params in _params(recipe) for name in params for text in filters_in(params[name])}
    if not wanted:
        return
    known = {tensor.name for tensor in walk(resolved)}
    known |= {info.name for model in models for info in model.header.tensors}
    for name, text in wanted:
        if not any(text in tensor for tensor in known):
            yield f"the filter {text!r} of {name!r} has no effect: it is part of no tensor's name."


def _params(recipe: Recipe) -> Iterator[Mapping[str, object]]:
    if recipe.merge is not None:
        yield recipe.merge.params
    for part in recipe.slices or ():
        yield part.params
