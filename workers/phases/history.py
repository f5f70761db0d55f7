"""What samplers may know of a job's candidates beyond their values, read from the store when somebody asks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.records import HeardScore, TrialBrief
from core.states import TrialState
from search.finalists import PARENT
from search.history import Known
from search.scores import Floats, Heard
from store import outcomes, trials
from store.session import ReadSession
from workers.phases.study import Search

#: Candidates whose results stay in memory; each takes a byte per item.
KEPT = 4096


@dataclass(frozen=True, slots=True)
class Results:
    """What a candidate answered along the study's order, per task.

    Attributes:
        correct: (items,) of 0 and 1.
        margins: (items,) in nats, length-normalised where the metric is.
    """

    correct: tuple[NDArray[np.uint8], ...]
    margins: tuple[Floats, ...]


def results(session: ReadSession, search: Search, recipe_digest: str, items: int) -> Results:
    """The stored results of a candidate on the first `items` search items of every task.

    Raises:
        KeyError: one of them has not been scored.
    """
    specs = search.job.request.objective.tasks
    keys = [(recipe_digest, search.job.fingerprints[spec.task]) for spec in specs]
    found = outcomes.load_many(session, keys)
    correct, margins = [], []
    for key, order in zip(keys, search.orders, strict=True):
        have = found[key]
        place = dict(zip(have.numbers, range(len(have)), strict=True))
        rows = [place[number] for number in order[:items]]
        correct.append(np.asarray(have.correct, dtype=np.uint8)[rows])
        margins.append(np.asarray(have.margins, dtype=np.float64)[rows])
    return Results(tuple(correct), tuple(margins))


class LiveHistory:
    """A `search.history.History` over the store. `renew` it before every look; it reads in that look's session."""

    def __init__(self) -> None:
        self._session: ReadSession | None = None
        self._search: Search | None = None
        self._parents: list[Known] = []
        self._candidates: dict[str, Known] = {}
        self._trials: dict[tuple[str | None, int | None], TrialBrief] = {}
        self._correct: dict[tuple[str, int], tuple[NDArray[np.uint8], ...]] = {}

    def renew(self, session: ReadSession, search: Search, every: Sequence[TrialBrief]) -> None:
        """Take note of how things stand.

        Args:
            session: of this look; samplers ask during the look alone.
            search: the job.
            every: all its trials.
        """
        self._session, self._search = session, search
        heard = [(trial, trial.heard[-1]) for trial in every if trial.heard]
        parents = [(trial, last) for trial, last in heard if trial.origin == PARENT]
        ended = [
            (trial, last)
            for trial, last in heard
            if trial.optuna_number is not None and trial.state in (TrialState.SCORED, TrialState.STOPPED)
        ]
        self._parents = [self._known(trial, last, None) for trial, last in parents]
        values = trials.values_of(session, [trial.id for trial, _ in ended if trial.id not in self._candidates])
        for trial, last in ended:
            if trial.id not in self._candidates:
                self._candidates[trial.id] = self._known(trial, last, values[trial.id])
        self._trials |= {_key(trial): trial for trial, _ in [*parents, *ended]}

    def parents(self) -> Sequence[Known]:
        """The parents scored so far, in the job's order."""
        return self._parents

    def candidates(self) -> Sequence[Known]:
        """The candidates that were scored or stopped, by number."""
        return sorted(self._candidates.values(), key=lambda known: known.number or 0)

    def correct(self, known: Known) -> Sequence[Floats]:
        """Per task the correctness (0 or 1) of the items seen, along the study's order."""
        assert self._session is not None
        assert self._search is not None
        trial = self._trials[known.name, known.number]
        key = trial.recipe_digest, trial.scored_items
        if key not in self._correct:
            if len(self._correct) >= KEPT:
                del self._correct[next(iter(self._correct))]
            self._correct[key] = results(self._session, self._search, *key).correct
        return [task.astype(np.float64) for task in self._correct[key]]

    def _known(self, trial: TrialBrief, last: HeardScore, values: dict[str, bool | int | float | str] | None) -> Known:
        assert self._search is not None
        heard = Heard(last.score, last.variance, last.n, last.tasks)
        complete = trial.scored_items >= self._search.whole
        name = trial.label if trial.origin == PARENT else None
        return Known(name, trial.optuna_number, values, heard, complete)


def _key(trial: TrialBrief) -> tuple[str | None, int | None]:
    return (trial.label, None) if trial.origin == PARENT else (None, trial.optuna_number)
