"""Samples from a generator as candidates of a search: the holes of a draw, filled and read back.

The seed is never a hole, for a number without an order cannot be searched. Where the family has a subspace of K fixed
samples, the seed is the study's and the coefficients are searched; else it is a hash of the study's seed and of the
candidate's values, so that a candidate always has the same one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import ValidationError

from core.draws import ARMS, LEAST_RADIUS, ArmInfo, Draw
from core.errors import RadiusLostError, SpaceError
from core.holes import Hole, Values, check_used, searched_spec
from core.noun import digest_of
from core.params import ChoiceParam, FloatParam, Scalar
from core.recipe.short import Dtype, Merge, Recipe, Source
from core.space_spec import GenerationFamily, Interval

#: Without a radius these decide how far a sample goes, and are searched.
FREE = ("strength", "blend")
AMOUNT = FloatParam(name="amount", default=1.0, low=0.0, high=4.0, search_low=0.0, search_high=1.5)
COEFFICIENT = FloatParam(name="coefficient", default=0.0, low=-8.0, high=8.0, search_low=-1.5, search_high=1.5)
ARM = "generation.arm"


def specs_of(family: GenerationFamily, arm: ArmInfo) -> Iterator[Any]:
    """What a search may vary of an arm, by default or not."""
    for spec in arm.params:
        if spec.name == "rho" and not family.radius:
            continue
        if family.radius and (spec.name == "blend" or arm.name == "matched-noise") and spec.name != "rho":
            continue
        yield spec.evolve(searched=True) if not family.radius and spec.name in FREE else spec


def mixes(family: GenerationFamily, arm: ArmInfo) -> bool:
    """Whether candidates of an arm are combinations of fixed samples."""
    return family.subspace > 0 and arm.name in ("diffusion", "posterior")


def extra_holes(family: GenerationFamily, arm: ArmInfo) -> Iterator[tuple[str, FloatParam]]:
    """Name and specification of the holes that belong to no parameter: amounts and coefficients."""
    if family.layer_groups > 1:
        for group in range(family.layer_groups):
            yield f"generation.{arm.name}.amount.g{group}", AMOUNT
    if mixes(family, arm):
        for number in range(family.subspace):
            # The first sample alone is the default: a combination of none would be the base.
            default = 1.0 if number == 0 else 0.0
            yield f"generation.{arm.name}.a{number}", COEFFICIENT.evolve(default=default)


def holes(family: GenerationFamily, when: tuple[tuple[str, Scalar], ...], *, save_dtype: Dtype) -> Iterator[Hole]:
    """All of the family's holes.

    Args:
        family: what is searched.
        when: the condition under which candidates are of this family.
        save_dtype: what candidates are rounded to; radii that it would take away are not searched.

    Raises:
        SpaceError: a parameter that no chosen arm has, or a value or interval that it cannot have.
        RadiusLostError: a radius, or an interval of it, that begins below what the dtype keeps.
    """
    _check_radius(family.params.get("rho"), save_dtype)
    arms = [ARMS[name] for name in family.arms]
    check_used(family.params, {spec.name for arm in arms for spec in specs_of(family, arm)}, "arm")
    if len(arms) > 1:
        choice = ChoiceParam(name="arm", default=family.arms[0], choices=family.arms, searched=True)
        yield Hole(name=ARM, spec=choice, when=when)
    for arm in arms:
        inner = (*when, (ARM, arm.name)) if len(arms) > 1 else when
        for spec in specs_of(family, arm):
            if spec.name == "rho":
                spec = spec.evolve(search_low=max(spec.search_low, LEAST_RADIUS[save_dtype]))
            searched = searched_spec(spec, family.params.get(spec.name))
            if searched is not None:
                yield Hole(name=f"generation.{arm.name}.{spec.name}", spec=searched, when=inner)
        for name, extra in extra_holes(family, arm):
            yield Hole(name=name, spec=extra, when=inner)


def _check_radius(wish: Interval | Scalar | None, save_dtype: Dtype) -> None:
    least = LEAST_RADIUS[save_dtype]
    asked = wish.low if isinstance(wish, Interval) else wish
    if isinstance(asked, int | float) and 0.0 < asked < least:
        raise RadiusLostError(
            f"in {save_dtype} a radius below {least!r} is lost in part, but `rho` begins at {asked!r}: take {least!r} "
            "or more, or an `export.save_dtype` of float32",
            where="rho",
        )


def fill(family: GenerationFamily, values: Values, models: Sequence[str], *, save_dtype: Dtype, seed: int) -> Recipe:
    """The recipe of a candidate.

    Args:
        family: what is searched.
        values: of its active holes.
        models: names of the job's models.
        save_dtype, seed: of the study.

    Raises:
        SpaceError: the family does not name its generator by digest, or has values that no draw can have.
    """
    arm = ARMS[str(values.get(ARM, family.arms[0]))]
    prefix = f"generation.{arm.name}."
    own = {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}
    fixed = {
        spec.name: value
        for spec in specs_of(family, arm)
        if isinstance(value := family.params.get(spec.name), bool | int | float | str)
    }
    amounts = tuple(own[f"amount.g{group}"] for group in range(family.layer_groups)) if family.layer_groups > 1 else ()
    mixed = tuple(own[f"a{number}"] for number in range(family.subspace)) if mixes(family, arm) else ()
    plain = {name: value for name, value in own.items() if name in {spec.name for spec in arm.params}}
    drawn = seed if mixed else int(digest_of([seed, dict(values)])[:15], 16)
    fields: dict[str, Any] = {
        "generator": family.generator,
        "selectors": family.selectors,
        "arm": arm.name,
        "mode": family.mode,
        "seed": drawn if arm.random else 0,
        "amounts": amounts,
        "coefficients": mixed,
    }
    try:
        draw = Draw(**fields | fixed | plain)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise SpaceError(f"{where} of a draw: {problem['msg']}, but got {problem['input']!r}", where=where) from error
    return _around(family, models).evolve(generation=draw, save_dtype=save_dtype)


def read(family: GenerationFamily, recipe: Recipe) -> dict[str, Scalar]:
    """The values of a candidate's holes, as far as it can have come from such a family."""
    draw = recipe.generation
    assert draw is not None
    prefix = f"generation.{draw.arm}."
    found: dict[str, Scalar] = {"family": "generation", ARM: draw.arm}
    for spec in ARMS[draw.arm].params:
        value = getattr(draw, spec.name)
        if value is not None:
            found[prefix + spec.name] = value
    found |= {f"{prefix}amount.g{group}": value for group, value in enumerate(draw.amounts)}
    found |= {f"{prefix}a{number}": value for number, value in enumerate(draw.coefficients)}
    return found


def _around(family: GenerationFamily, models: Sequence[str]) -> Recipe:
    """What is sampled around: one model, or the family's recipe."""
    if isinstance(family.around, Recipe):
        source = Source(name="around", recipe=family.around)
    else:
        name = family.base or models[0]
        source = Source(name=name, model=name)
    return Recipe(sources=(source,), merge=Merge(method="passthrough", sources=(source.name,)))
