"""Trials: candidates of a job, their scores, and the steps that work on them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal, TypeVar

from sqlalchemy import RowMapping, Select, and_, func, insert, or_, select, update

from core.errors import ConflictError
from core.params import Scalar
from core.recipe.resolved import ResolvedRecipe
from core.recipe.short import Recipe
from core.records import Device, Failure, HeardScore, Score, StepKind, TrialBrief, TrialRecord, new_id
from core.states import StepState, TrialState
from store import events, jobs, rows, steps
from store.page import Page, checked, cut, decode, encode
from store.session import ReadSession, Session
from store.tables import steps as step_rows
from store.tables import trials

T = TypeVar("T")
Order = Literal["number", "score"]

_MOVABLE = frozenset({"failure", "rung", "macro", "provenance"})
_JUDGED = (TrialState.RUNNING, TrialState.WAITING, TrialState.SCORED, TrialState.STOPPED)


def create(
    s: Session,
    job_id: str,
    *,
    origin: str,
    label: str = "",
    values: Mapping[str, Scalar] | None,
    recipe: Recipe,
    resolved: ResolvedRecipe,
    target_items: int,
    device: Device | None,
    optuna_number: int | None = None,
    priority: int = 0,
) -> TrialRecord:
    """Create the job's next trial with its first `run_trial` step.

    Args:
        device: the kind that runs the step; None queues no step, for a trial whose outcomes are known.

    Raises:
        NotFoundError: no such job.
        ConflictError: the job has ended.
    """
    rows.lock_job(s, job_id)
    _still_open(s, job_id)
    number = select(func.coalesce(func.max(trials.c.number) + 1, 0)).where(trials.c.job_id == job_id)
    row = {
        "id": new_id("trial"),
        "job_id": job_id,
        "number": number.scalar_subquery(),
        "optuna_number": optuna_number,
        "origin": origin,
        "label": label,
        "state": TrialState.QUEUED.value,
        "values": dict(values) if values is not None else None,
        "recipe": recipe.model_dump(mode="json"),
        "resolved": resolved.model_dump(mode="json"),
        "recipe_digest": resolved.digest(),
        "target_items": target_items,
    }
    made = s.execute(insert(trials).values(row).returning(*rows.columns(trials, TrialRecord))).one()
    trial = rows.build(TrialRecord, made)
    if device is not None:
        steps.add(s, StepKind.RUN_TRIAL, device, job_id=job_id, trial_id=trial.id, priority=priority)
    _tell(s, trial)
    return trial


def get(s: ReadSession, id: str) -> TrialRecord:
    """One trial.

    Raises:
        NotFoundError: no such trial.
    """
    return rows.get(s, trials, TrialRecord, id)


def of_job(s: ReadSession, job_id: str, states: Collection[TrialState] | None = None) -> list[TrialRecord]:
    """Trials of a job by number, all or those in `states`."""
    query = rows.query(trials, TrialRecord).where(trials.c.job_id == job_id)
    if states is not None:
        query = query.where(trials.c.state.in_([state.value for state in states]))
    return [rows.build(TrialRecord, row) for row in s.execute(query.order_by(trials.c.number))]


def some(s: ReadSession, ids: Collection[str]) -> list[TrialRecord]:
    """The trials with these ids, by number."""
    query = rows.query(trials, TrialRecord).where(trials.c.id.in_(list(ids)))
    return [rows.build(TrialRecord, row) for row in s.execute(query.order_by(trials.c.number))] if ids else []


def briefs(s: ReadSession, job_id: str) -> list[TrialBrief]:
    """All trials of a job by number, without what is long to read."""
    columns = [trials.c[field.name] for field in dataclasses.fields(TrialBrief)]
    found = s.execute(select(*columns).where(trials.c.job_id == job_id).order_by(trials.c.number))
    return [_brief(row._mapping) for row in found]


def values_of(s: ReadSession, ids: Collection[str]) -> dict[str, dict[str, Scalar] | None]:
    """The values of the trials with these ids."""
    query = select(trials.c.id, trials.c["values"]).where(trials.c.id.in_(list(ids)))
    return {row.id: row.values for row in s.execute(query)} if ids else {}


def provenances(s: ReadSession, ids: Collection[str]) -> list[dict[str, Any]]:
    """What the trials with these ids were scored with, by number."""
    query = select(trials.c.provenance).where(trials.c.id.in_(list(ids))).order_by(trials.c.number)
    return [dict(row.provenance) for row in s.execute(query)] if ids else []


def page(
    s: ReadSession, job_id: str, limit: int, cursor: str | None = None, order: Order = "number"
) -> Page[TrialRecord]:
    """Trials of a job by number, or best macro first (those without one last, then by number)."""
    query = rows.query(trials, TrialRecord).where(trials.c.job_id == job_id)
    return paged(s, query, limit, cursor, order, lambda row: rows.build(TrialRecord, row))


def paged(
    s: ReadSession, query: Select[Any], limit: int, cursor: str | None, order: Order, build: Callable[[Any], T]
) -> Page[T]:
    """One page of a query over trials that holds their number and macro."""
    if order == "number":
        query = query.order_by(trials.c.number)
    else:
        query = query.order_by(trials.c.macro.desc().nulls_last(), trials.c.number)
    if cursor is not None:
        query = query.where(_beyond(order, cursor))
    found = s.execute(query.limit(checked(limit) + 1)).all()
    return cut(found, limit, build, lambda row: _cursor(order, row))


def move(s: Session, id: str, target: TrialState, **fields: Any) -> TrialRecord:
    """Move a trial. Steps still queued for a trial that ends are cancelled.

    Args:
        fields: new values of `failure`, `rung`, `macro`, `provenance`.

    Raises:
        NotFoundError: no such trial.
        ConflictError: no such move from its state.
        ValueError: a field that no move may set.
    """
    unknown = sorted(fields.keys() - _MOVABLE)
    if unknown:
        raise ValueError(f"a move may set {sorted(_MOVABLE)!r}, but got {unknown!r}: use the function for it")
    rows.lock_job_of(s, trials, id)
    values = {name: rows.dumped(v) if isinstance(v, Failure) else v for name, v in fields.items()}
    if target.final:
        values["finished_at"] = func.now()
    trial = rows.move(s, trials, TrialRecord, id, target, **values)
    if target.final:
        steps.cancel(s, step_rows.c.trial_id == id, (StepState.QUEUED,))
    _tell(s, trial)
    return trial


def fail(s: Session, id: str, failure: Failure) -> TrialRecord:
    """Record that a trial failed; its job goes on.

    Raises:
        NotFoundError: no such trial.
        ConflictError: it has ended.
    """
    return move(s, id, TrialState.FAILED, failure=failure)


def raise_target(s: Session, id: str, target_items: int, rung: int, device: Device) -> TrialRecord:
    """Promote a trial: raise its target and queue the step that scores up to it, ahead of new trials.

    Raises:
        NotFoundError: no such trial.
        ConflictError: it is neither waiting nor running, or its target is as high already.
    """
    job_id = rows.lock_job_of(s, trials, id)
    before = get(s, id)
    if target_items <= before.target_items:
        raise ConflictError(
            f"a target only rises, but {id!r} has {before.target_items} items and would get {target_items}: "
            "it was raised before",
            where="target_items",
        )
    states = (TrialState.WAITING, TrialState.RUNNING)
    values = {"target_items": target_items, "rung": rung}
    trial = rows.change(s, trials, TrialRecord, id, states, values, "be promoted")
    steps.add(s, StepKind.RUN_TRIAL, device, job_id=job_id, trial_id=id, priority=steps.PROMOTION)
    payload = {"trial_id": id, "number": trial.number, "target_items": target_items, "rung": rung}
    events.append(s, trial.job_id, "trial_target", payload)
    return trial


def record(
    s: Session,
    id: str,
    *,
    scored_items: int,
    scores: Sequence[Score],
    macro: float | None,
    seconds_added: float,
    provenance: Mapping[str, Any] | None = None,
    weights_digest: str | None = None,
) -> TrialRecord:
    """Record scores on search items. Seconds add up, provenance is merged, a digest once known stays known.

    Raises:
        NotFoundError: no such trial.
        ConflictError: it is queued, failed or cancelled.
    """
    values = {
        "scored_items": scored_items,
        "scores": _dumped(scores),
        "macro": macro,
        "seconds": trials.c.seconds + seconds_added,
        "provenance": trials.c.provenance.concat(dict(provenance or {})),
        "weights_digest": func.coalesce(weights_digest, trials.c.weights_digest),
    }
    return _judge(s, id, values, "have scores")


def record_heldout(
    s: Session, id: str, scores: Sequence[Score], macro: float | None, *, weights_digest: str | None = None
) -> TrialRecord:
    """Record scores on held-out items, and the digest of the weights that were scored.

    Raises:
        NotFoundError: no such trial.
        ConflictError: it is queued, failed or cancelled.
    """
    values = {
        "heldout": _dumped(scores),
        "macro_heldout": macro,
        "weights_digest": func.coalesce(weights_digest, trials.c.weights_digest),
    }
    return _judge(s, id, values, "have held-out scores")


def hear(s: Session, id: str, heard: Sequence[HeardScore]) -> None:
    """Record the scores that a trial is raced and told by.

    Raises:
        NotFoundError: no such trial.
        ConflictError: it is queued, failed or cancelled.
    """
    _judge(s, id, {"heard": [score.model_dump(mode="json") for score in heard]}, "be heard")


def mark_told(s: Session, id: str, optuna_number: int) -> None:
    """Record that the sampler has heard the result, under which of its numbers.

    Raises:
        NotFoundError: no such trial.
    """
    rows.lock_job_of(s, trials, id)
    s.execute(update(trials).where(trials.c.id == id).values(told=True, optuna_number=optuna_number))


def _brief(row: RowMapping) -> TrialBrief:
    heard = tuple(HeardScore.model_validate(score) for score in row["heard"])
    return TrialBrief(**(dict(row) | {"state": TrialState(row["state"]), "heard": heard}))


def _judge(s: Session, id: str, values: dict[str, Any], wish: str) -> TrialRecord:
    rows.lock_job_of(s, trials, id)
    return rows.change(s, trials, TrialRecord, id, _JUDGED, values, wish)


def _still_open(s: Session, job_id: str) -> None:
    state = jobs.get(s, job_id).state
    if state.final:
        raise ConflictError(f"only a job under way has new trials, but {job_id!r} is {state}: post a new job")


def _tell(s: Session, trial: TrialRecord) -> None:
    payload = {
        "trial_id": trial.id,
        "number": trial.number,
        "state": trial.state.value,
        "scored_items": trial.scored_items,
        "macro": trial.macro,
    }
    events.append(s, trial.job_id, "trial_state", payload)


def _dumped(scores: Sequence[Score]) -> list[dict[str, Any]]:
    return [score.model_dump(mode="json") for score in scores]


def _cursor(order: Order, row: Any) -> str:
    return encode(order, row.number) if order == "number" else encode(order, row.macro, row.number)


def _beyond(order: Order, cursor: str) -> Any:
    if order == "number":
        (number,) = decode(order, cursor, int)
        return trials.c.number > number
    macro, number = decode(order, cursor, (int, float, type(None)), int)
    later = and_(trials.c.macro.is_not_distinct_from(macro), trials.c.number > number)
    if macro is None:
        return later
    return or_(later, trials.c.macro < macro, trials.c.macro.is_(None))
