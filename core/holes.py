"""The holes of a search space: what one of them admits, and where it exists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.errors import RecipeError, SpaceError
from core.noun import Noun
from core.params import ChoiceParam, FloatParam, IntParam, ParamSpec, Scalar, check_value
from core.space_spec import Interval

Values = Mapping[str, Scalar]


class Hole(Noun):
    """One searched parameter: it exists where every condition (name, allowed value) holds.

    Attributes:
        every: of a choice of which some are closed for now, all that it may ever have; else none.
    """

    name: str
    spec: ParamSpec
    when: tuple[tuple[str, Scalar], ...] = ()
    every: tuple[str, ...] = ()

    def active(self, values: Values) -> bool:
        """Whether the hole exists given the values so far."""
        return all(values.get(name) == wanted for name, wanted in self.when)

    def within(self, value: Scalar) -> Scalar:
        """The nearest value that it admits; of a choice, the value itself."""
        if isinstance(self.spec, ChoiceParam) or isinstance(value, str):
            return value
        return min(max(value, self.spec.search_low), self.spec.search_high)

    def admits(self, value: Scalar) -> bool:
        """Whether a value lies in the searched interval."""
        if isinstance(self.spec, ChoiceParam):
            return value in self.spec.choices
        if not isinstance(value, int | float) or (isinstance(self.spec, IntParam) and value % 1 != 0):
            return False
        return self.spec.search_low <= value <= self.spec.search_high


def check_used(given: Mapping[str, Any], used: set[str], what: str) -> None:
    """Check that every parameter that a family speaks of belongs to what it chose.

    Raises:
        SpaceError: one does not.
    """
    unknown = sorted(set(given) - used)
    if unknown:
        raise SpaceError(
            f"no chosen {what} has a parameter {unknown[0]!r}: they take {sorted(used)!r}", where=unknown[0]
        )


def searched_spec(
    spec: FloatParam | IntParam | ChoiceParam, wish: Interval | Scalar | None
) -> FloatParam | IntParam | ChoiceParam | None:
    """The spec as searched: its default interval, the wished one, or None where it stays fixed.

    Raises:
        SpaceError: an interval or a value that the parameter cannot have.
    """
    if isinstance(wish, Interval):
        if isinstance(spec, ChoiceParam):
            raise SpaceError(
                f"{spec.name!r} is a choice of {list(spec.choices)!r}: fix it or leave it out", where=spec.name
            )
        low, high = (round(wish.low), round(wish.high)) if isinstance(spec, IntParam) else (wish.low, wish.high)
        legal_low, legal_high = spec.low, spec.high
        if low > high or (legal_low is not None and low < legal_low) or (legal_high is not None and high > legal_high):
            raise SpaceError(
                f"{spec.name!r} may be searched within [{legal_low}, {legal_high}], but got [{low}, {high}]"
            )
        if wish.log and low <= 0:
            raise SpaceError(
                f"{spec.name!r} on a log scale needs bounds above 0, but got [{low}, {high}]: raise `low`",
                where=spec.name,
            )
        return spec.evolve(search_low=low, search_high=high, log=wish.log)
    if wish is None:
        return spec if spec.searched else None
    try:
        check_value(spec, wish, where=spec.name)
    except RecipeError as error:
        raise SpaceError(error.message, where=spec.name) from error
    return None
