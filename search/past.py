"""The trials of a study as strategies read them: values, state, and the score with its variance."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import optuna
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from core.records import TrialRecord
from core.states import TrialState

State = Literal["complete", "stopped", "running", "failed"]

_STATES: dict[OptunaState, State] = {
    OptunaState.COMPLETE: "complete",
    OptunaState.PRUNED: "stopped",
    OptunaState.RUNNING: "running",
    OptunaState.FAIL: "failed",
}

_ROWS: dict[TrialState, State] = {TrialState.SCORED: "complete", TrialState.STOPPED: "stopped"}


@dataclass(frozen=True, slots=True)
class Past:
    """One trial, by its number in Optuna.

    Attributes:
        values: of the active holes; those chosen so far while it is running.
        score: of a complete or stopped one, else None; under several objectives the first of them.
        variance: of the score; 0 where nobody told it.
        items: per task, behind the score; 0 where nobody told it.
        goals: under several objectives each one's value, for complete ones.
    """

    number: int
    state: State
    values: dict[str, Any]
    score: float | None = None
    variance: float = 0.0
    items: int = 0
    goals: tuple[float, ...] = ()


def past(study: optuna.Study) -> list[Past]:
    """All trials but those that wait in the queue, by number."""
    found = study.get_trials(deepcopy=False, states=tuple(_STATES))
    return [_read(trial) for trial in sorted(found, key=lambda trial: trial.number)]


def of_rows(rows: Iterable[TrialRecord]) -> list[Past]:
    """Our own rows with values and a score, under their numbers in the job."""
    found = []
    for row in rows:
        state = _ROWS.get(row.state)
        if state is not None and row.values is not None and (heard := row.last_heard) is not None:
            values = dict(row.values)
            found.append(Past(row.number, state, values, heard.score, heard.variance, heard.items))
    return found


def _read(trial: FrozenTrial) -> Past:
    state, attrs = _STATES[trial.state], trial.user_attrs
    goals = tuple(trial.values or ()) if state == "complete" else ()
    score = goals[0] if goals else None
    if state == "stopped" and trial.intermediate_values:
        score = trial.intermediate_values[max(trial.intermediate_values)]
    return Past(
        number=trial.number,
        state=state,
        values=dict(trial.params),
        score=score,
        variance=float(attrs.get("variance", 0.0)),
        items=int(attrs.get("items", 0)),
        goals=goals,
    )
