"""The forms of a recipe, all told as slices: a merge, a layout, free slices, or a path."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

from core.catalog import catalog
from core.errors import LayoutError, ParentsDoNotFitError, RecipeError, UnknownModelError
from core.recipe.layouts import layout_indices
from core.recipe.naming import merged_names
from core.recipe.path import Path
from core.recipe.short import Layout, Merge, Recipe, Slice, SliceSource
from core.recipe.values import has_groups


@dataclass(frozen=True)
class Form:
    """A recipe as slices.

    Attributes:
        slices: the stack, from the first layer to the last.
        embed, head: the slices whose sources and values the tensors before and after the stack take.
        streams: of a path with scales, for every output layer the factor that the residual stream has gathered.
    """

    slices: tuple[Slice, ...]
    embed: Slice
    head: Slice
    streams: tuple[float, ...] | None = None


def form_of(recipe: Recipe, depths: Mapping[str, int]) -> Form:
    """The recipe as slices.

    Args:
        recipe: the short form.
        depths: layers of each of its sources; 0 where it is not known which tensors are layers.

    Raises:
        UnknownModelError, UnknownMethodError, UnknownLayoutError: a name nobody knows.
        ParentsDoNotFitError: a merge of stacks of different depth.
        LayoutError: a layout that does not fit its source, or over a source whose layers are not known.
        RecipeError: layer groups over sources whose layers are not known; a base where a merge's method takes none.
    """
    if recipe.path is not None:
        return _of_path(recipe.path, depths)
    if recipe.slices is not None:
        slices = recipe.slices
        for source in (source for part in slices for source in part.sources):
            _depth(source.source, depths)
    elif recipe.layout is not None:
        slices = (_layout_slice(recipe.layout, depths),)
    else:
        assert recipe.merge is not None
        slices = (_merge_slice(recipe, recipe.merge, depths),)
    return Form(slices, slices[0], slices[-1])


def _depth(name: str, depths: Mapping[str, int]) -> int:
    """Layers of a source that has some."""
    if name not in depths:
        raise UnknownModelError.suggest(name, depths, where="sources")
    if depths[name] == 0:
        raise LayoutError(
            f"only layers that are known can be moved, but which tensors of {name!r} are layers is not known: "
            "use `merge`, which takes it tensor by tensor",
            where=name,
        )
    return depths[name]


def _layout_slice(layout: Layout, depths: Mapping[str, int]) -> Slice:
    layers = layout_indices(layout.preset, _depth(layout.source, depths), layout.params)
    return Slice(sources=(SliceSource(source=layout.source, layers=layers),))


def _merge_slice(recipe: Recipe, merge: Merge, depths: Mapping[str, int]) -> Slice:
    """A merge as one slice over the whole stack, the base last among its sources."""
    base, info = merge.base, catalog().method(merge.method)
    names = merged_names(recipe, merge)
    for name in names:
        if name not in depths:
            raise UnknownModelError.suggest(name, depths, where="base" if name == base else "sources")
    if info.base_of(base) != base:
        raise RecipeError(
            f"{info.name!r} takes no base, but got {base!r}: leave it out, or list it in `sources` to merge it like "
            "the others",
            where="base",
        )
    chosen = {name: depths[name] for name in names}
    if len(set(chosen.values())) > 1:
        raise ParentsDoNotFitError(f"merging needs equal depth, but the sources have {chosen!r} layers: use slices")
    depth = depths[names[0]]
    grouped = sorted(name for name, value in merge.params.items() if has_groups(value)) if depth == 0 else []
    if grouped:
        raise RecipeError(
            f"layer groups cut a stack of known layers, but which tensors of {names[0]!r} are layers is not known: "
            f"give {grouped[0]!r} one value, or filters by tensor name",
            where=grouped[0],
        )
    sources = tuple(SliceSource(source=name, **({"range": (0, depth)} if depth else {"layers": ()})) for name in names)
    return Slice(sources=sources, method=merge.method, base=base, params=merge.params)


def _of_path(path: Path, depths: Mapping[str, int]) -> Form:
    known = {name: _depth(name, depths) for name in path.sources}
    steps = path.steps(known)
    slices = tuple(
        Slice(sources=(SliceSource(source=name, layers=tuple(layer for _, layer, _ in steps)),))
        for name, steps in ((name, tuple(run)) for name, run in itertools.groupby(steps, key=lambda step: step[0]))
    )
    edges = [path.embed or path.sources[0], path.head or steps[-1][0]]
    embed, head = (Slice(sources=(SliceSource(source=name, range=(0, _depth(name, depths))),)) for name in edges)
    streams = tuple(itertools.accumulate((scale for _, _, scale in steps), lambda stream, scale: stream * scale))
    return Form(slices, embed, head, streams)
