"""From the short form to the resolved one: defaults filled, layouts expanded, one value for every tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.catalog import MethodInfo, catalog
from core.errors import LayoutError, ParentsDoNotFitError, RecipeError, UnknownModelError
from core.model import Model, check_fit
from core.noun import canonical_json
from core.params import FloatParam, Scalar
from core.recipe.attention import attention_kinds, check_attention
from core.recipe.drawing import checked_draw
from core.recipe.factors import with_factors
from core.recipe.forms import form_of
from core.recipe.ingredients import Registered, model_of, models_in
from core.recipe.naming import used_names
from core.recipe.output import stack_kinds
from core.recipe.resolved import Entry, Group, ResolvedRecipe, ResolvedSource, resolved_source
from core.recipe.short import Recipe, Slice, Source
from core.recipe.tokenizers import aligned_vocabulary, joint_digest
from core.recipe.values import Place, check_values, has_filters, pick, reached

SCALE = FloatParam(name="scale", default=1.0, search_low=0.5, search_high=1.5, about="factor on the result")
#: Weights whose sum is a smaller share of their sizes cancel: divided by it, float32's rounding would be seen.
CANCELLING = 1e-6


@dataclass(frozen=True)
class Ingredient:
    """A source with what resolution needs to know of it."""

    name: str
    resolved: ResolvedSource
    models: tuple[Model, ...]
    suffixes: tuple[tuple[str, ...], ...]
    embed: tuple[str, ...]
    head: tuple[str, ...]
    tokenizer: str | None
    kinds: tuple[str, ...]

    @property
    def depth(self) -> int:
        """Layers of its stack."""
        return len(self.suffixes)


def resolve(recipe: Recipe, models: Registered) -> ResolvedRecipe:
    """The complete description of the candidate.

    Args:
        recipe: the short form.
        models: registered models and adapters by the names that the recipe's sources use.

    Raises:
        UnknownModelError, UnknownMethodError, UnknownLayoutError: a name nobody knows.
        ParentsDoNotFitError: headers that cannot be combined, an adapter of another base included.
        LayoutError: layer indices out of range, layers that are not known, or factors that weights cannot take; a
            draw around layers that are not in their places.
        SelectorError: a draw that selects nothing.
        RecipeError: a value that is malformed, missing or out of bounds; weights that sum to zero.
    """
    return resolve_named(recipe, models)[0]


def resolve_named(recipe: Recipe, models: Registered) -> tuple[ResolvedRecipe, tuple[str, ...]]:
    """As `resolve`, with what the recipe calls each of the resolved sources."""
    ingredients = {source.name: _ingredient(source, models) for source in recipe.sources}
    depths = {name: item.depth for name, item in ingredients.items()}
    form = form_of(recipe, depths)
    slices = tuple(_check_slice(s, ingredients) for s in form.slices)
    used = used_names(recipe, depths)
    table = {name: position for position, name in enumerate(used)}
    chosen = [ingredients[name] for name in used]
    # A model that is reached twice is compared once; equal weights under another config are another model.
    parents = {(m.weights_digest, m.header.config_digest): m for item in chosen for m in item.models}
    vocabulary = aligned_vocabulary(
        recipe.tokenizer, [item.resolved for item in chosen], [m.header for item in chosen for m in item.models]
    )
    check_fit(list(parents.values()), same_depth=False, same_vocabulary=vocabulary is None)
    steps = [(s, step) for s in slices for step in range(len(s.sources[0].indices()))]
    plain = [_layer_entry(s, step, layer, ingredients, table) for layer, (s, step) in enumerate(steps)]
    header = chosen[0].models[0].header
    stack = tuple(with_factors(plain, recipe.repeated, form.streams, header))
    _check_places(stack, parents.values())
    check_attention(stack, [(item.name, item.kinds) for item in chosen])
    random = any(catalog().method(s.method).random for s in slices)
    donor = recipe.donor or used[0]
    if donor not in table:
        raise UnknownModelError.suggest(donor, used, where="tokenizer")
    resolved = ResolvedRecipe(
        model_type=header.model_type,
        sources=tuple(item.resolved for item in chosen),
        layers=stack,
        embed=_edge_entry(form.embed, "embed", ingredients, table),
        head=_edge_entry(form.head, "head", ingredients, table),
        tokenizer=table[donor],
        tokenizer_digest=joint_digest(vocabulary, [item.tokenizer for item in chosen], table[donor]),
        vocabulary=vocabulary,
        compute_dtype=recipe.compute_dtype,
        save_dtype=recipe.save_dtype,
        seed=recipe.seed if random else 0,
        statistics=recipe.statistics if any(catalog().method(s.method).measured for s in slices) else None,
    )
    draw = checked_draw(recipe.generation, resolved)
    return resolved if draw is None else resolved.evolve(generation=draw), used


def _ingredient(source: Source, models: Registered) -> Ingredient:
    if source.recipe is not None:
        inner = resolve(source.recipe, models)
        named = models_in(source.recipe, models)
        return Ingredient(
            source.name,
            ResolvedSource(kind="recipe", recipe=inner),
            tuple(named[digest] for digest in inner.model_digests()),
            tuple(_entry_tensors(entry) for entry in inner.layers),
            _entry_tensors(inner.embed),
            _entry_tensors(inner.head),
            inner.tokenizer_digest,
            stack_kinds(inner, {digest: model.header for digest, model in named.items()}),
        )
    model = model_of(source, models)
    header = model.header
    suffixes = header.stack_suffixes
    resolved = resolved_source(model)
    edges = header.embed_tensors(), header.head_tensors()
    kinds = attention_kinds(header)
    return Ingredient(source.name, resolved, (model,), suffixes, *edges, header.tokenizer_files, kinds)


def _entry_tensors(entry: Entry) -> tuple[str, ...]:
    return tuple(sorted(tensor for group in entry.groups for tensor in group.tensors))


def _named(name: str, ingredients: Mapping[str, Ingredient]) -> Ingredient:
    if name not in ingredients:
        raise UnknownModelError.suggest(name, ingredients, where="sources")
    return ingredients[name]


def _check_slice(part: Slice, ingredients: Mapping[str, Ingredient]) -> Slice:
    """The slice, if its method, sources, base and layer indices are right."""
    info = catalog().method(part.method)
    names = [s.source for s in part.sources]
    if len(set(names)) != len(names):
        raise RecipeError(
            f"a slice may name each source once, but got {names!r}: declare the source twice", where="slices"
        )
    _check_sources(info, part, names)
    lengths = {s.source: len(s.indices()) for s in part.sources}
    if len(set(lengths.values())) > 1 or (0 in lengths.values() and _named(names[0], ingredients).depth):
        raise LayoutError(f"the sources of a slice need equally many layers, at least one, but got {lengths!r}")
    for s in part.sources:
        depth = _named(s.source, ingredients).depth
        outside = [i for i in s.indices() if not 0 <= i < depth]
        if outside:
            raise LayoutError(
                f"{s.source!r} has layers 0 to {depth - 1}, but the layout asks for {outside[0]!r}: lower it",
                where=s.source,
            )
    unknown = sorted(set(part.params) - {p.name for p in info.params} - {"scale"})
    if unknown:
        takes = [p.name for p in info.params]
        raise RecipeError(f"{part.method!r} has no parameter {unknown[0]!r}: it takes {takes!r}", where=unknown[0])
    own = [name for name in names if name != part.base]
    for spec in (*info.params, SCALE):
        each = spec.scope == "source" or (spec.name == SCALE.name and len(names) == 1)
        check_values(spec, part.params.get(spec.name), own if each else ())
    return part


def _check_sources(info: MethodInfo, part: Slice, names: Sequence[str]) -> None:
    if info.needs_base and part.base is None:
        raise RecipeError(f"{info.name!r} takes deltas against a base: name one in `base`", where="base")
    if part.base is not None and info.base_of(part.base) is None:
        raise RecipeError(f"{info.name!r} takes no base, but got {part.base!r}: leave it out", where="base")
    if part.base is not None and part.base not in names:
        raise UnknownModelError.suggest(part.base, names, where="base")
    others = len(names) - int(part.base is not None)
    low, high = info.min_sources, info.max_sources
    if others < low or (high is not None and others > high):
        bounds = f"at least {low}" if high is None else f"{low} to {high}" if low < high else f"{low}"
        counted = f", for the base {part.base!r} is not counted" if part.base is not None else ""
        raise RecipeError(
            f"{info.name!r} takes {bounds} sources besides its base, but got {others} of {list(names)!r}{counted}: "
            "change the sources or the method",
            where="sources",
        )


def _check_places(stack: Sequence[Entry], models: Iterable[Model]) -> None:
    """Where a config makes a layer's computation depend on its index, every layer stays in its place."""
    moved = [place for place, entry in enumerate(stack) if any(layer != place for _, layer in entry.sources)]
    for model in models if moved else ():
        key = model.header.architecture.place_key
        if key is not None and model.header.config_dict.get(key):
            raise LayoutError(
                f"{key!r} of {model.name!r} ties what a layer computes to its place, but layer {moved[0]} of the stack "
                "comes from another: only merge such models",
                where=key,
            )


def _layer_entry(
    part: Slice, step: int, layer: int, ingredients: Mapping[str, Ingredient], table: Mapping[str, int]
) -> Entry:
    """The entry of the slice's layer number `step`, which is the candidate's layer number `layer`."""
    count = len(part.sources[0].indices())
    picked = [(s.source, s.indices()[step]) for s in part.sources]
    suffixes = {name: ingredients[name].suffixes[index] for name, index in picked}
    _same_tensors(suffixes)
    family = ingredients[picked[0][0]].models[0].header.architecture
    indices = [layer, *(index for _, index in picked)]

    def places(suffix: str) -> tuple[Place, ...]:
        by_index = {i: Place(family.layer_tensor(i, suffix), index=step, count=count) for i in set(indices)}
        return tuple([by_index[i] for i in indices])

    return _entry(part, [(table[name], index) for name, index in picked], suffixes[picked[0][0]], places)


def _edge_entry(part: Slice, edge: Any, ingredients: Mapping[str, Ingredient], table: Mapping[str, int]) -> Entry:
    """The entry of the embedding or the head, combined like the slice next to it."""
    tensors = {s.source: getattr(ingredients[s.source], edge) for s in part.sources}
    _same_tensors(tensors)
    names = tensors[part.sources[0].source]

    def places(name: str) -> tuple[Place, ...]:
        return (Place(tensor=name, part=edge),) * (1 + len(part.sources))

    return _entry(part, [(table[s.source], -1) for s in part.sources], names, places)


def _same_tensors(tensors: Mapping[str, tuple[str, ...]]) -> None:
    (first, names), *rest = tensors.items()
    for other, others in rest:
        if set(names) != set(others):
            odd = sorted(set(names) ^ set(others))[0]
            raise ParentsDoNotFitError(f"{first!r} and {other!r} do not fit: only one has tensor {odd!r}", where=odd)


def _entry(
    part: Slice, sources: list[tuple[int, int]], tensors: Sequence[str], places: Callable[[str], tuple[Place, ...]]
) -> Entry:
    """The entry of these tensors; `places` gives the place of each in the candidate and then in every source."""
    info = catalog().method(part.method)
    base = [s.source for s in part.sources].index(part.base) if part.base is not None else None
    return Entry(
        sources=tuple(sources),
        base=base,
        method=info.name,
        version=info.version,
        groups=tuple(_groups(info, part, base, sorted(tensors), places)),
    )


def _groups(
    info: MethodInfo, part: Slice, base: int | None, tensors: list[str], places: Callable[[str], tuple[Place, ...]]
) -> Iterable[Group]:
    """Sorted tensors in groups of equal values."""
    # Without filters all of them get the same: asked for once, for this is done for every layer of a candidate.
    if tensors and not any(map(has_filters, part.params.values())):
        return [_group(info, part, base, tuple(tensors), places(tensors[0]))]
    alike: dict[str, list[Group]] = {}
    for tensor in tensors:
        group = _group(info, part, base, (tensor,), places(tensor))
        alike.setdefault(canonical_json(group.model_dump(exclude={"tensors"})), []).append(group)
    return [groups[0].evolve(tensors=tuple(each.tensors[0] for each in groups)) for groups in alike.values()]


def _group(
    info: MethodInfo, part: Slice, base: int | None, tensors: tuple[str, ...], places: tuple[Place, ...]
) -> Group:
    """Tensors, with the values of the one whose places these are."""
    place, *own = places
    params: dict[str, Scalar] = {}
    per_source: list[dict[str, Scalar]] = [{} for _ in part.sources]
    for spec in info.params:
        value = part.params.get(spec.name)
        if spec.scope == "source":
            for position, source in enumerate(part.sources):
                if position != base:
                    per_source[position] |= _told(spec, pick(spec, value, own[position], source.source))
        elif spec.name != "scale":
            found = pick(spec, value, place)
            reach = isinstance(spec, FloatParam) and spec.reach
            params |= _told(spec, reached(float(found), place) if reach else found)
    _check_weights(info, params, per_source, place)
    return Group(tensors=tensors, params=params, source_params=tuple(per_source), scale=_scale(part, place, own))


def _told(spec: Any, value: Scalar) -> dict[str, Scalar]:
    """What the resolved form says of a value: nothing where it is implied."""
    return {} if spec.implied and value == spec.default else {spec.name: value}


def _scale(part: Slice, place: Place, own: Sequence[Place]) -> float:
    """The factor on one tensor; where there is one source, it may be given as a value of that source."""
    value = part.params.get("scale")
    if len(own) == 1 and isinstance(value, dict):
        return float(pick(SCALE, value, own[0], part.sources[0].source))
    return float(pick(SCALE, value, place))


def _check_weights(
    info: MethodInfo, params: Mapping[str, Scalar], per_source: Sequence[Mapping[str, Scalar]], place: Place
) -> None:
    """No sum that rounding may have left of 0 is divided by."""
    rule = info.divides
    weights = [float(values["weight"]) for values in per_source if "weight" in values]
    if rule is None or params.get(rule.name) is not True or not weights:
        return
    if abs(sum(weights)) <= CANCELLING * sum(abs(weight) for weight in weights):
        raise RecipeError(
            f"weights must not sum to 0 under {rule.name}, but tensor {place.tensor!r} gets {weights!r}: "
            f"change a weight or set {rule.name} to false",
            where="weight",
        )
