"""Known good starts: what a study tries before its sampler has anything to go by."""

from __future__ import annotations

from core.catalog import catalog
from core.noun import canonical_json
from core.params import ChoiceParam, Scalar
from core.recipe.short import Recipe
from core.space import SearchSpace


def seeds(space: SearchSpace, limit: int | None = None) -> list[dict[str, Scalar]]:
    """Values to enqueue first, best bets first.

    The first uniform merge, which is the study's reference (see `reference`). Full task vectors (all weights 1) of
    methods that add them up without normalising, task arithmetic before others: of the usual methods it is the one
    that reliably beats its parents (arXiv 2511.21437: four models, twelve fine-tunes each). Then the uniform merge of
    every other method, in the order of the space.

    Args:
        space: the compiled search space.
        limit: at most so many (a small budget should not be spent on them); None takes all.
    """
    uniform = [space.read(recipe) for recipe in space.uniform()]
    full = [found for values in uniform if (found := _full_vectors(space, values)) is not None]
    full.sort(key=lambda values: values.get("merge.method", "task_arithmetic") != "task_arithmetic")
    distinct = {canonical_json(values): values for values in [*uniform[:1], *full, *uniform]}
    return list(distinct.values())[:limit]


def reference(space: SearchSpace) -> Recipe | None:
    """The candidate that all others are compared with, item by item: the space's first uniform merge, if any."""
    return next(iter(space.uniform()), None)


def _full_vectors(space: SearchSpace, values: dict[str, Scalar]) -> dict[str, Scalar] | None:
    """The uniform merge with every weight 1, where that is another merge and inside the bounds."""
    recipe = space.fill(values)
    assert recipe.merge is not None
    info = catalog().method(recipe.merge.method)
    normalises = {spec.name: spec.default for spec in info.params} | dict(recipe.merge.params)
    if not info.needs_base or normalises.get("normalize") is not False:
        return None
    prefix = f"merge.{info.name}.weight."
    holes = [hole for hole in space.active(values) if hole.name.startswith(prefix)]
    if not holes or any(isinstance(hole.spec, ChoiceParam) or not hole.admits(1.0) for hole in holes):
        return None
    return values | {hole.name: 1.0 for hole in holes}
