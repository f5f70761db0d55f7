"""A recipe under other names for its models: what one job calls `math` another may call `a`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.recipe.short import Recipe, Slice, Tokenizer
from core.recipe.values import GROUPS


def renamed(recipe: Recipe, names: Mapping[str, str]) -> Recipe | None:
    """The recipe with its models, adapters and the sources that bear their names called otherwise.

    Args:
        recipe: in its short form.
        names: new names by old ones, no two alike.

    Returns:
        None where a model, an adapter or a source has no new name, or where the recipe is made of other recipes or of a
        path, whose sources are named by what they are made of.
    """
    called = {name for source in recipe.sources for name in (source.name, source.model, source.adapter) if name}
    if not called <= set(names) or recipe.path is not None or any(source.recipe for source in recipe.sources):
        return None
    return recipe.evolve(
        sources=tuple(
            source.evolve(
                name=names[source.name],
                model=names[source.model] if source.model else None,
                adapter=names[source.adapter] if source.adapter else None,
            )
            for source in recipe.sources
        ),
        merge=recipe.merge
        and recipe.merge.evolve(
            base=recipe.merge.base and names[recipe.merge.base],
            sources=recipe.merge.sources and tuple(names[name] for name in recipe.merge.sources),
            params=_params(recipe.merge.params, names),
        ),
        layout=recipe.layout and recipe.layout.evolve(source=names[recipe.layout.source]),
        slices=recipe.slices and tuple(_slice(part, names) for part in recipe.slices),
        tokenizer=_tokenizer(recipe.tokenizer, names),
    )


def _slice(part: Slice, names: Mapping[str, str]) -> Slice:
    sources = tuple(source.evolve(source=names[source.source]) for source in part.sources)
    return part.evolve(sources=sources, base=part.base and names[part.base], params=_params(part.params, names))


def _tokenizer(tokenizer: str | Tokenizer | None, names: Mapping[str, str]) -> str | Tokenizer | None:
    if isinstance(tokenizer, Tokenizer):
        return tokenizer.evolve(source=tokenizer.source and names[tokenizer.source])
    return tokenizer and names[tokenizer]


def _params(params: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {param: _value(value, names) for param, value in params.items()}


def _value(value: Any, names: Mapping[str, str]) -> Any:
    """A value in any form: per source its keys are names, groups and points of a gradient hold none."""
    if isinstance(value, list | tuple):
        return [
            {**each, "value": _value(each["value"], names)} if isinstance(each, Mapping) else each for each in value
        ]
    if isinstance(value, Mapping) and GROUPS not in value:
        return {names.get(name, name): _value(each, names) for name, each in value.items()}
    return value
