"""The search space: a recipe with holes. `fill` and `read` are inverse.

Holes are conditional: `family` decides which of `merge.*`, `layout.*` and `generation.*` exist, `merge.method` and
`generation.arm` which parameters do. Names read like paths: `merge.ties.weight.a.g0` is the weight of source `a` in
the first layer group under `ties`.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from core import space_generation
from core.catalog import Catalog, MethodInfo, catalog
from core.errors import RecipeError, SpaceError, UnknownModelError
from core.holes import Hole, Values, check_used, searched_spec
from core.params import ChoiceParam, IntParam, Scalar
from core.recipe.ingredients import names_in
from core.recipe.short import Dtype, Layout, Merge, Recipe, Repeated, Source
from core.space_spec import REPEATED, REST, Family, GenerationFamily, Interval, LayoutFamily, MergeFamily, SpaceSpec

__all__ = ["Hole", "SearchSpace", "Values", "check_weights"]


class SearchSpace:
    """A compiled space: an ordered tuple of holes over a job's models.

    Args:
        spec: the families.
        models: names of the job's models, in order.
        depth: layers of the parents (bounds the layout parameters).
        save_dtype, seed: copied into every recipe.
        closed: families that nothing is proposed of yet. Their holes are left out, and all others are what they will
            be once these are open.

    Raises:
        UnknownModelError, UnknownMethodError, UnknownLayoutError, SpaceError: the spec is wrong.
    """

    def __init__(
        self,
        spec: SpaceSpec,
        models: Sequence[str],
        *,
        depth: int,
        save_dtype: Dtype = "bfloat16",
        seed: int = 0,
        closed: Collection[str] = (),
    ) -> None:
        self.spec = spec
        self.closed = frozenset(closed)
        self.models = tuple(models)
        self.depth = depth
        self.save_dtype: Dtype = save_dtype
        self.seed = seed
        self._families = {family.family: family for family in spec.families}
        if len(self._families) != len(spec.families):
            raise SpaceError("each family may appear once: join the two into one", where="families")
        self.holes: tuple[Hole, ...] = tuple(self._compile())

    def active(self, values: Values) -> Iterator[Hole]:
        """The holes that exist under `values`, in order (conditions only look backwards)."""
        return (hole for hole in self.holes if hole.active(values))

    def check(self, values: Values) -> None:
        """Check that `values` names exactly the active holes and lies inside them.

        Raises:
            SpaceError: a value is missing, superfluous or outside.
        """
        active = list(self.active(values))
        for hole in active:
            if hole.name not in values:
                raise SpaceError(f"{hole.name!r} has no value: give it one", where=hole.name)
            if not hole.admits(values[hole.name]):
                raise SpaceError(f"{hole.name!r} = {values[hole.name]!r} lies outside {hole.spec!r}", where=hole.name)
        extra = sorted(set(values) - {hole.name for hole in active})
        if extra:
            raise SpaceError(f"{extra[0]!r} is not a parameter under these values: leave it out", where=extra[0])

    def fill(self, values: Values) -> Recipe:
        """The recipe with every active hole filled."""
        self.check(values)
        family = str(values.get("family", self.spec.families[0].family))
        if family == "generation":
            own = self._family(GenerationFamily)
            return space_generation.fill(own, values, self.models, save_dtype=self.save_dtype, seed=self.seed)
        return self._fill_merge(values) if family == "merge" else self._fill_layout(values)

    def read(self, recipe: Recipe) -> dict[str, Scalar]:
        """The values that `fill` turns into `recipe`.

        Raises:
            SpaceError: the recipe is not in the space.
        """
        if recipe.generation is not None:
            values = space_generation.read(self._family(GenerationFamily), recipe)
        else:
            values = self._read_merge(recipe) if recipe.merge is not None else self._read_layout(recipe)
        ordered = {hole.name: values[hole.name] for hole in self.holes if hole.name in values}
        try:
            again = self.fill(ordered)
        except SpaceError:
            again = None
        if again != recipe:
            raise SpaceError("the recipe cannot be expressed in this space: add its method, sources or range")
        return ordered

    def uniform(self) -> list[Recipe]:
        """The uniform merge of each method: every weight is 1/n, every other value its default."""
        found = []
        for method in self._methods():
            values: dict[str, Scalar] = {"family": "merge", "merge.method": method.name}
            for hole in self.holes:
                if not hole.active(values) or hole.name in values:
                    continue
                values[hole.name] = self._uniform_value(method, hole)
            known = {hole.name for hole in self.holes}
            values = {name: value for name, value in values.items() if name in known}
            found.append(self.fill(values))
        return found

    # -- compiling -------------------------------------------------------------------------------------------------

    def _compile(self) -> Iterator[Hole]:
        names = tuple(self._families)
        open_ = tuple(name for name in names if name not in self.closed)
        if len(names) > 1:
            spec = ChoiceParam(name="family", default=open_[0], choices=open_, searched=True)
            yield Hole(name="family", spec=spec, every=names if self.closed else ())
        for family in self.spec.families:
            if family.family in self.closed:
                continue
            when: tuple[tuple[str, Scalar], ...] = (("family", family.family),) if len(names) > 1 else ()
            yield from self._family_holes(family, when)

    def _family_holes(self, family: Family, when: tuple[tuple[str, Scalar], ...]) -> Iterator[Hole]:
        if isinstance(family, MergeFamily):
            return self._merge_holes(family, when)
        if isinstance(family, GenerationFamily):
            return self._generation_holes(family, when)
        return self._layout_holes(family, when)

    def _generation_holes(self, family: GenerationFamily, when: tuple[tuple[str, Scalar], ...]) -> Iterator[Hole]:
        around = family.around if isinstance(family.around, Recipe) else None
        for name in names_in(around) if around is not None else [family.base or self.models[0]]:
            self._known_model(name)
        return space_generation.holes(family, when, save_dtype=self.save_dtype)

    def _merge_holes(self, family: MergeFamily, when: tuple[tuple[str, Scalar], ...]) -> Iterator[Hole]:
        donor = family.tokenizer.source if family.tokenizer is not None else None
        for name in (*(family.sources or ()), *(name for name in (family.base, donor) if name)):
            self._known_model(name)
        methods = self._methods()
        if len(methods) > 1:
            choices = tuple(m.name for m in methods)
            spec = ChoiceParam(name="method", default=choices[0], choices=choices, searched=True)
            yield Hole(name="merge.method", spec=spec, when=when)
        for method in methods:
            inner = (*when, ("merge.method", method.name)) if len(methods) > 1 else when
            yield from self._method_holes(family, method, inner)
        check_used(family.params, {spec.name for method in methods for spec in method.params}, "method")

    def _method_holes(
        self, family: MergeFamily, method: MethodInfo, when: tuple[tuple[str, Scalar], ...]
    ) -> Iterator[Hole]:
        if method.needs_base and family.base is None:
            raise SpaceError(f"{method.name!r} takes deltas against a base: name one in `base`", where="base")
        sources = self._sources(family)
        if len(sources) < method.min_sources:
            raise SpaceError(
                f"{method.name!r} needs {method.min_sources} sources, but the family has {list(sources)!r}"
            )
        picks = self._picks(method, sources)
        if len(picks) > 1:
            kind = _pick_name(method).rpartition(".")[2]
            spec = ChoiceParam(name=kind, default=picks[0], choices=picks, searched=True)
            yield Hole(name=_pick_name(method), spec=spec, when=when)
        for spec_ in method.params:
            searched = searched_spec(spec_, family.params.get(spec_.name))
            if searched is None:
                continue
            for suffix in self._suffixes(spec_, _labels(method, sources, picks), family):
                yield Hole(name=f"merge.{method.name}.{spec_.name}{suffix}", spec=searched, when=when)

    def _layout_holes(self, family: LayoutFamily, when: tuple[tuple[str, Scalar], ...]) -> Iterator[Hole]:
        for name in family.sources:
            self._known_model(name)
        infos = [catalog().layout(name) for name in family.presets]
        for info in infos:
            if not info.searchable:
                raise SpaceError(
                    f"layout {info.name!r} takes a list of layers, which no search varies: write it as a recipe",
                    where="presets",
                )
        for key, choices in (("preset", family.presets), ("source", family.sources)):
            if len(choices) > 1:
                spec = ChoiceParam(name=key, default=choices[0], choices=choices, searched=True)
                yield Hole(name=f"layout.{key}", spec=spec, when=when)
        for info in infos:
            inner = (*when, ("layout.preset", info.name)) if len(infos) > 1 else when
            for spec_ in info.params:
                assert isinstance(spec_, IntParam)
                # More than half of the stack off each copy would remove layers altogether, so most stay below it.
                high = max(spec_.search_low, min(spec_.search_high, int(self.depth * spec_.depth_share)))
                default = min(max(spec_.default, spec_.search_low), high)
                yield Hole(
                    name=f"layout.{info.name}.{spec_.name}",
                    spec=spec_.evolve(search_high=high, default=default),
                    when=inner,
                )

        wanted = _by_name(family.repeated)
        for factor in REPEATED if family.repeated is not None else ():
            searched = searched_spec(factor, wanted.get(factor.name, factor.default))
            if searched is not None:
                yield Hole(name=f"layout.repeated.{factor.name}", spec=searched, when=when)

    # -- filling and reading ---------------------------------------------------------------------------------------

    def _fill_merge(self, values: Values) -> Recipe:
        family = self._family(MergeFamily)
        methods = self._methods()
        method = catalog().method(str(values.get("merge.method", methods[0].name)))
        sources = self._sources(family)
        picks = self._picks(method, sources)
        if picks:
            sources = tuple(str(values.get(_pick_name(method), picks[0])).split("|"))
        labels = dict(zip(sources, _labels(method, sources, picks), strict=True))
        params: dict[str, Any] = {}
        for spec in method.params:
            fixed = family.params.get(spec.name)
            if searched_spec(spec, fixed) is not None:
                params[spec.name] = self._fill_param(values, f"merge.{method.name}.{spec.name}", spec, labels)
            elif fixed is not None:
                params[spec.name] = fixed
        base = method.base_of(family.base)
        donor = family.tokenizer.source if family.tokenizer is not None else None
        names = dict.fromkeys((*((base,) if base else ()), *sources, *((donor,) if donor else ())))
        return Recipe(
            sources=tuple(Source(name=n, model=n) for n in names),
            merge=Merge(method=method.name, base=base, sources=sources, params=params),
            tokenizer=family.tokenizer,
            save_dtype=self.save_dtype,
            seed=self.seed,
        )

    def _fill_param(self, values: Values, prefix: str, spec: Any, labels: Mapping[str, str]) -> Any:
        family = self._family(MergeFamily)

        def grouped(stem: str) -> Any:
            if family.layer_groups == 1 or spec.scope == "recipe":
                return values[stem]
            return {"groups": [values[f"{stem}.g{g}"] for g in range(family.layer_groups)]}

        def blocked(stem: str) -> Any:
            if not family.blocks or spec.scope == "recipe":
                return grouped(stem)
            found = [{"filter": block, "value": grouped(f"{stem}.{block}")} for block in family.blocks]
            return [*found, {"value": grouped(f"{stem}.{REST}")}]

        if spec.scope == "source" and any(labels.values()):
            return {source: blocked(f"{prefix}.{label}") for source, label in labels.items()}
        return blocked(prefix)

    def _fill_layout(self, values: Values) -> Recipe:
        family = self._family(LayoutFamily)
        preset = str(values.get("layout.preset", family.presets[0]))
        source = str(values.get("layout.source", family.sources[0]))
        params: dict[str, int | tuple[int, ...]] = {
            s.name: int(values[f"layout.{preset}.{s.name}"]) for s in catalog().layout(preset).params
        }
        return Recipe(
            sources=(Source(name=source, model=source),),
            layout=Layout(preset=preset, source=source, params=params),
            repeated=self._fill_repeated(family, values),
            save_dtype=self.save_dtype,
            seed=self.seed,
        )

    def _fill_repeated(self, family: LayoutFamily, values: Values) -> Repeated | None:
        if family.repeated is None:
            return None
        wanted = _by_name(family.repeated)
        return Repeated(
            **{
                factor.name: values.get(f"layout.repeated.{factor.name}", wanted.get(factor.name, factor.default))
                for factor in REPEATED
            }
        )

    def _read_merge(self, recipe: Recipe) -> dict[str, Scalar]:
        assert recipe.merge is not None
        merge, values = recipe.merge, {"family": "merge", "merge.method": recipe.merge.method}
        read: dict[str, Scalar] = dict(values)
        labels: dict[str, str] = {}
        for method in (method for method in self._methods() if method.name == merge.method):
            sources = merge.sources or ()
            picks = self._picks(method, self._sources(self._family(MergeFamily)))
            labels = dict(zip(sources, _labels(method, sources, picks), strict=False))
            read[_pick_name(method)] = "|".join(sources)
        for name, value in merge.params.items():
            read |= {f"merge.{merge.method}.{name}{suffix}": inner for suffix, inner in _cells(value, labels)}
        return read

    def _read_layout(self, recipe: Recipe) -> dict[str, Scalar]:
        if recipe.layout is None:
            raise SpaceError("free slices cannot be expressed in a search space: use a layout preset")
        layout = recipe.layout
        fixed: dict[str, Scalar] = {"family": "layout", "layout.preset": layout.preset, "layout.source": layout.source}
        given = {f"layout.{layout.preset}.{name}": value for name, value in layout.params.items()}
        factors = recipe.repeated.model_dump() if recipe.repeated is not None else {}
        again: dict[str, Scalar] = {f"layout.repeated.{name}": value for name, value in factors.items()}
        return fixed | again | {name: value for name, value in given.items() if isinstance(value, int)}

    # -- small questions -------------------------------------------------------------------------------------------

    def _methods(self) -> list[MethodInfo]:
        family = self._families.get("merge")
        known: Catalog = catalog()
        return [known.method(name) for name in family.methods] if isinstance(family, MergeFamily) else []

    def _sources(self, family: MergeFamily) -> tuple[str, ...]:
        return family.sources or tuple(name for name in self.models if name != family.base)

    def _picks(self, method: MethodInfo, sources: Sequence[str]) -> tuple[str, ...]:
        """Choices of as many sources as the method takes at most, as `a|b`; none where it takes any number.

        Both orders are choices only where each source has a part of its own.
        """
        if method.max_sources is None:
            return ()
        choose = itertools.permutations if method.parts else itertools.combinations
        return tuple("|".join(pick) for pick in choose(sources, method.max_sources))

    def _suffixes(self, spec: Any, sources: Sequence[str], family: MergeFamily) -> list[str]:
        per_source = [f".{s}" if s else "" for s in sources] if spec.scope == "source" else [""]
        if spec.scope == "recipe":
            return per_source
        groups, blocks = family.layer_groups, family.blocks
        per_block = [f".{block}" for block in (*blocks, REST)] if blocks else [""]
        per_group = [f".g{g}" for g in range(groups)] if groups > 1 else [""]
        return ["".join(parts) for parts in itertools.product(per_source, per_block, per_group)]

    def _uniform_value(self, method: MethodInfo, hole: Hole) -> Scalar:
        spec = hole.spec
        if isinstance(spec, ChoiceParam):
            return spec.default
        value: float = spec.default
        if spec.name == "weight":
            value = 1 / len(self._sources(self._family(MergeFamily)))
        value = min(max(value, spec.search_low), spec.search_high)
        return round(value) if isinstance(spec, IntParam) else value

    def _family(self, kind: type) -> Any:
        for family in self.spec.families:
            if isinstance(family, kind):
                return family
        raise SpaceError(f"the space has no {kind.__name__}: add one to `families`", where="families")

    def _known_model(self, name: str) -> None:
        if name not in self.models:
            raise UnknownModelError.suggest(name, self.models, where="space")


def check_weights(family: MergeFamily) -> None:
    """Check that candidates get weights to normalise by; needs no header.

    Raises:
        RecipeError: every candidate gets the weight 0, under a method that divides by their sum.
    """
    weight = family.params.get("weight")
    fixed = weight.high if isinstance(weight, Interval) and weight.low == weight.high else weight
    if isinstance(fixed, Interval) or fixed != 0:
        return
    for method in map(catalog().method, family.methods):
        rule = method.divides
        if rule is not None and family.params.get(rule.name, rule.default) is True:
            raise RecipeError(
                f"weights must not sum to 0 under {rule.name}, but {method.name!r} gets {fixed!r} for every source: "
                f"change the weight or set {rule.name} to false",
                where="weight",
            )


def _by_name(factors: Mapping[Any, Any] | None) -> dict[str, Any]:
    return {} if factors is None else dict(factors)


def _pick_name(method: MethodInfo) -> str:
    """The hole that chooses the sources of a method that takes one or two."""
    return f"merge.{method.name}.{'source' if method.max_sources == 1 else 'pair'}"


def _labels(method: MethodInfo, sources: Sequence[str], picks: Sequence[str]) -> tuple[str, ...]:
    """What holes call the sources: by name, or by place where they are picked; a single one needs no name."""
    if not picks:
        return tuple(sources)
    count = method.max_sources or 0
    return tuple(str(place + 1) for place in range(count)) if count > 1 else ("",)


def _cells(value: Any, labels: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    """The numbers of a value, per source, per block and per group, each with its place in the name of a hole."""
    parts: list[tuple[str, Any]] = []
    if isinstance(value, Mapping) and set(value) == {"groups"}:
        parts = [(f"g{g}", inner) for g, inner in enumerate(value["groups"])]
    elif isinstance(value, Mapping):
        parts = [(labels.get(source, source), inner) for source, inner in value.items()]
    elif isinstance(value, list | tuple) and all(isinstance(entry, Mapping) for entry in value):
        parts = [(entry.get("filter", REST), entry.get("value")) for entry in value]
    else:
        yield "", value
    for label, inner in parts:
        yield from ((f".{label}{suffix}", cell) for suffix, cell in _cells(inner, labels))
