"""What a study knows of its candidates beyond what Optuna keeps: parents, and results item by item."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from core.params import Scalar
from search.scores import Floats, Heard


@dataclass(frozen=True, slots=True)
class Known:
    """A parent or candidate with results.

    Attributes:
        name: of the parent's model; None for a candidate.
        number: Optuna's number of the candidate; None for a parent.
        values: the candidate's values; None for a parent.
        heard: its score as a sampler hears it.
        complete: whether it was scored on all search items.
    """

    name: str | None
    number: int | None
    values: dict[str, Scalar] | None
    heard: Heard
    complete: bool


class History(Protocol):
    """Read-only and kept current by whoever passes it."""

    def parents(self) -> Sequence[Known]:
        """The parents scored so far, in the job's order."""

    def candidates(self) -> Sequence[Known]:
        """The candidates that were scored or stopped, by number."""

    def correct(self, known: Known) -> Sequence[Floats]:
        """Per task the correctness (0 or 1) of the items seen, along the study's order."""


class _Empty:
    def parents(self) -> Sequence[Known]:
        return ()

    def candidates(self) -> Sequence[Known]:
        return ()

    def correct(self, known: Known) -> Sequence[Floats]:
        return ()


#: Of a study that nobody has scored anything for.
EMPTY: History = _Empty()
