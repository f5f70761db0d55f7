"""The draw of a recipe in its resolved form: checked against the candidate it samples around."""

from __future__ import annotations

from core.architectures import architecture_of
from core.draw_records import pack
from core.draws import Draw
from core.errors import LayoutError
from core.recipe.output import walk
from core.recipe.resolved import ResolvedRecipe
from core.selectors import select


def record_of(recipe: ResolvedRecipe) -> bytes:
    """All that reproduces a sampled candidate from its generator and its base, see `core.draw_records`.

    The base is the candidate without its draw, by recipe digest (a bare model counts as its identity recipe).

    Args:
        recipe: the candidate, with a draw.
    """
    assert recipe.generation is not None
    return pack(recipe.generation, recipe.evolve(generation=None).digest())


def checked_draw(draw: Draw | None, around: ResolvedRecipe) -> Draw | None:
    """The draw as the resolved form says it; None where it changes nothing.

    Args:
        draw: of the short form.
        around: the candidate without it.

    Raises:
        SelectorError: a selector that finds nothing.
        LayoutError: a stack whose layers are not where the generator has learned them.
    """
    if draw is None:
        return None
    moved = [place for place, entry in enumerate(around.layers) if any(layer != place for _, layer in entry.sources)]
    if moved:
        raise LayoutError(
            f"a generator knows layers by their places, but layer {moved[0]} of the stack comes from another: sample "
            "in a recipe of its own, and take that as the source of the layout",
            where="generation",
        )
    names = [tensor.name for tensor in walk(around)]
    select(names, architecture_of(around.model_type), len(around.layers), draw.selectors)
    return None if draw.idle else draw.canonical
