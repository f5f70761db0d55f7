"""Which models a recipe is made of: registered ones, and those that an adapter makes of one."""

from __future__ import annotations

from collections.abc import Mapping

from core.adapters import Adapter, adapt
from core.errors import RecipeError, UnknownModelError
from core.model import Model
from core.recipe.short import Recipe, Source

#: What recipes name: models and adapters, by the names that sources use.
Registered = Mapping[str, Model | Adapter]


def model_of(source: Source, registered: Registered) -> Model:
    """The model that a source means.

    Raises:
        UnknownModelError: no model or adapter of that name.
        RecipeError: a model where an adapter is wanted, or the other way round.
        CheckpointError, ParentsDoNotFitError: an adapter that its base does not fit.
    """
    where = f"sources.{source.name}"
    model = _named(str(source.model), registered, where)
    if isinstance(model, Adapter):
        raise RecipeError(
            f"`model` of source {source.name!r} must name a model, but {source.model!r} is an adapter: name its base "
            "there, and the adapter in `adapter`",
            where=where,
        )
    if source.adapter is None:
        return model
    adapter = _named(source.adapter, registered, where)
    if not isinstance(adapter, Adapter):
        raise RecipeError(
            f"`adapter` of source {source.name!r} must name an adapter, but {source.adapter!r} is a model", where=where
        )
    return adapt(model, adapter)


def models_in(recipe: Recipe, registered: Registered) -> dict[str, Model]:
    """Every model of a recipe and of the recipes in it, by weights digest; errors as in `model_of`."""
    found: dict[str, Model] = {}
    for source in recipe.sources:
        if source.recipe is not None:
            found.update(models_in(source.recipe, registered))
        else:
            model = model_of(source, registered)
            found[model.weights_digest] = model
    return found


def names_in(recipe: Recipe) -> tuple[str, ...]:
    """Every name of a model or adapter in a recipe and the recipes in it, in order of first use."""
    found: dict[str, None] = {}
    for source in recipe.sources:
        if source.recipe is not None:
            found.update(dict.fromkeys(names_in(source.recipe)))
        found.update(dict.fromkeys(name for name in (source.model, source.adapter) if name is not None))
    return tuple(found)


def _named(name: str, registered: Registered, where: str) -> Model | Adapter:
    if name not in registered:
        raise UnknownModelError.suggest(name, registered, where=where)
    return registered[name]
