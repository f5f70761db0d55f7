"""Plans of many candidates: what depends on a candidate's structure alone is worked out once."""

from __future__ import annotations

import hashlib
import marshal
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from core.alignment import Alignment
from core.model import Header
from core.recipe.output import OutputTensor
from core.recipe.resolved import Entry, Group, ResolvedRecipe
from merging.plan import TensorPlan, plan

#: Structures that are remembered.
KEPT = 16
#: Version of `marshal` in which equal values have equal bytes: later ones tell objects apart, too.
SAME_BYTES = 2
#: The attributes of a plan that are the recipe's values.
VALUES = ("params", "source_params", "scale", "part", "shift")


@dataclass(frozen=True, slots=True)
class Site:
    """One output tensor of a structure: all of its plan but the recipe's values.

    Attributes:
        fixed: the attributes of its plan.
        entry, group: where its values stand.
    """

    fixed: Mapping[str, Any]
    entry: int
    group: int


#: The `VALUES` of a plan, and their digest.
Values = tuple[Mapping[str, Any], bytes]


@dataclass(slots=True)
class Last:
    """A structure, and the last candidate that had it.

    Attributes:
        sites: of all its tensors.
        plans: theirs, with the values they were made of.
    """

    sites: tuple[Site, ...]
    plans: list[tuple[Values, TensorPlan]]


class Planner:
    """Plans candidates over the same parents; the plans are those of `merging.plan.plan`.

    Args:
        headers: of the parents, by weights digest.
    """

    def __init__(self, headers: Mapping[str, Header]) -> None:
        self._headers = headers
        self._known: OrderedDict[Structure, Last] = OrderedDict()
        self._values: dict[Hashable, Values] = {}
        self._structure: Structure | None = None

    def structure(self, recipe: ResolvedRecipe) -> Structure | None:
        """As `structure_of`; candidates in a row that have the same share one object, which is compared no more."""
        found = structure_of(recipe)
        if found != self._structure:
            self._structure = found
        return self._structure

    def plan(
        self, recipe: ResolvedRecipe, alignment: Alignment | None, structure: Structure | None
    ) -> tuple[TensorPlan, ...]:
        """As `merging.plan.plan`.

        Args:
            recipe: the candidate.
            alignment: as there.
            structure: `structure(recipe)`.
        """
        if structure is None:
            return plan(recipe, self._headers, alignment)
        if structure not in self._known:
            self._known[structure] = Last(_sites(recipe, plan(recipe, self._headers, alignment)), [])
            while len(self._known) > KEPT:
                self._known.popitem(last=False)
        self._known.move_to_end(structure)
        known, values = self._known[structure], self._valued(recipe)
        wanted = [values[site.entry][site.group] for site in known.sites]
        # What has the values that it had in the last candidate has its plan.
        if known.plans:
            known.plans = [
                last if last[0] is given else (given, _filled(site, *given))
                for site, given, last in zip(known.sites, wanted, known.plans, strict=True)
            ]
        else:
            known.plans = [(given, _filled(site, *given)) for site, given in zip(known.sites, wanted, strict=True)]
        return tuple([planned for _, planned in known.plans])

    def _valued(self, recipe: ResolvedRecipe) -> list[list[Values]]:
        """The values of every group of every entry; one object for those that are equal, in the last candidate too."""
        before, self._values = self._values, {}
        return [[self._own(before, entry, group) for group in entry.groups] for entry in _entries(recipe)]

    def _own(self, before: Mapping[Hashable, Values], entry: Entry, group: Group) -> Values:
        # As bytes, which tell a zero from its negative.
        part = None if group.part is None else tuple(group.part.model_dump().values())
        numbers = marshal.dumps((group.params, group.source_params, group.scale, part, group.shift), SAME_BYTES)
        key = entry.method, entry.base, numbers
        found = self._values.get(key) or before.get(key) or _values(entry, group)
        self._values[key] = found
        return found


class Structure:
    """What recipes with equal plans but for the values have in common; hashed once, for it is large."""

    __slots__ = ("_hash", "_parts")

    def __init__(self, *parts: Hashable) -> None:
        self._parts, self._hash = parts, hash(parts)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Structure) and self._parts == other._parts)


def structure_of(recipe: ResolvedRecipe) -> Structure | None:
    """The structure of a recipe.

    None where more than that depends on the values, or on other recipes: nested ones, draws, aligned vocabularies, and
    task vectors that are trimmed over the whole model.
    """
    entries = _entries(recipe)
    nested = any(source.recipe is not None for source in recipe.sources)
    drawn = recipe.generation is not None
    if nested or drawn or recipe.vocabulary is not None or any(entry.trims_the_model for entry in entries):
        return None
    sources = tuple([source.source_digest for source in recipe.sources])
    shapes = tuple(
        [
            (entry.sources, entry.base, entry.method, entry.version, tuple([group.tensors for group in entry.groups]))
            for entry in entries
        ]
    )
    return Structure(
        recipe.model_type, sources, shapes, recipe.tokenizer, recipe.save_dtype, recipe.seed, recipe.statistics
    )


def _entries(recipe: ResolvedRecipe) -> tuple[Entry, ...]:
    return recipe.embed, *recipe.layers, recipe.head


def _sites(recipe: ResolvedRecipe, plans: tuple[TensorPlan, ...]) -> tuple[Site, ...]:
    """The sites of a planned recipe, in the order of its plans."""
    places = [
        (entry, group)
        for entry, each in enumerate(_entries(recipe))
        for group, members in enumerate(each.groups)
        for _ in members.tensors
    ]
    return tuple(_site(planned, *place) for planned, place in zip(plans, places, strict=True))


def _site(planned: TensorPlan, entry: int, group: int) -> Site:
    names = [name for name in planned.__dataclass_fields__ if name not in (*VALUES, "site")]
    fixed = {name: getattr(planned, name) for name in names}
    text = repr([value for name, value in fixed.items() if name != "name"])
    return Site({**fixed, "site": hashlib.sha256(text.encode()).digest()}, entry, group)


def _values(entry: Entry, group: Group) -> Values:
    output = OutputTensor("", entry, group, "")
    found = (output.params, output.source_params, group.scale, group.part, group.shift)
    values = dict(zip(VALUES, found, strict=True))
    return values, hashlib.sha256(repr(values).encode()).digest()


def _filled(site: Site, values: Mapping[str, Any], digest: bytes) -> TensorPlan:
    # Not through the constructor, which sets one attribute after the other: this is done for every tensor of every
    # candidate.
    planned = object.__new__(TensorPlan)
    planned.__dict__.update(site.fixed, content=site.fixed["site"] + digest, **values)
    return planned
