"""A search's own generator of weights: trained once under way, from the best that was found by then.

Its family is closed until then. Once the generator is there, an event says so and the family opens; where the training
fails, another event says so and the search goes on without. Both are all that later looks go by, so a restart, a pause
or a rebuilt study changes nothing of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from core.errors import InvalidInputError
from core.records import FREE, Failure, JobRecord, StepKind, StepRecord, TrialBrief
from core.states import StepState, TrialState
from search.finalists import PARENT
from store import events, generators, steps, trials
from store.session import ReadSession, Session
from workers.elite import elite
from workers.phases import converging, refining
from workers.phases.judging import ACTIVE
from workers.phases.study import Search

if TYPE_CHECKING:
    from workers.phases.running import Look

#: Priority of the training: ahead of proposals and refinements, behind promotions.
PRIORITY = 60
_ENDED = (TrialState.SCORED, TrialState.STOPPED)


def settle(session: Session, job: JobRecord) -> None:
    """Note what became of the training, once: from then on the family is open, or never will be."""
    if job.request.sampled is None or _fate(session, job):
        return
    ordered = _ordered(session, job.id)
    if not ordered or ordered[-1].state not in (StepState.DONE, StepState.FAILED):
        return
    step = ordered[-1]
    if step.state is StepState.FAILED:
        failure = step.failure or Failure(code="internal", message="the training failed")
        _given_up(session, job.id, failure, step.id)
        return
    result, chosen = step.result or {}, [str(id) for id in step.payload["elite"]]
    payload = {
        "step": step.id,
        "generator": result["digest"],
        "artifact": result["artifact"],
        "seconds": result["seconds"],
        "best": trials.get(session, chosen[0]).recipe.model_dump(mode="json") if chosen else None,
        "trials": len(trials.briefs(session, job.id)),
    }
    events.append(session, job.id, generators.READY, payload)


def lost(session: ReadSession, search: Search) -> Failure | None:
    """The failure that ends a search all of whose candidates would have come from the generator."""
    if not search.waits:
        return None
    noted = events.of_kind(session, search.job.id, generators.FAILED)
    return Failure(code=noted[0].payload["code"], message=noted[0].payload["message"]) if noted else None


def train(look: Look) -> None:
    """Order the training once enough candidates have ended, or none of the other families is left to propose."""
    session, search = look.session, look.search
    family, lesson = search.job.request.sampled, search.job.request.lesson
    if family is None or family.own is None or lesson is None or not awaited(session, search):
        return
    if _ordered(session, search.job.id):
        return
    ended = [trial for trial in look.every if trial.state in _ENDED and trial.origin != PARENT]
    early = len(ended) < family.own.train_after
    if early and not _at_rest(session, search, look.every):
        return
    chosen = []
    if family.own.train_after:
        rows = trials.of_job(session, search.job.id, _ENDED)
        chosen = elite(rows, search.models[lesson.models[0]], family.own.top)
    if family.own.train_after and not chosen:
        _wait_or_give_up(look)
        return
    payload = {"elite": [trial.id for trial in chosen]}
    step = steps.add(
        session, StepKind.TRAIN_GENERATOR, search.device, job_id=search.job.id, payload=payload, priority=PRIORITY
    )
    noted = {"step": step.id, "ended": len(ended), "early": early, "elite": [trial.number for trial in chosen]}
    events.append(session, search.job.id, generators.PLANNED, noted)


def awaited(session: ReadSession, search: Search) -> bool:
    """Whether a generator is still to come."""
    return search.job.request.sampled is not None and not _fate(session, search.job)


def cap(session: ReadSession, search: Search) -> int | None:
    """How many candidates may be proposed for now: half of those that come after the training wait for it."""
    limit, family = search.job.request.budget.trials, search.job.request.sampled
    if limit is None or family is None or family.own is None or not awaited(session, search):
        return limit
    return family.own.train_after + (limit - family.own.train_after) // 2


def stop(session: Session, job_id: str) -> None:
    """The search is over: a generator that is still being trained is of no use."""
    steps.cancel_kind(session, job_id, StepKind.TRAIN_GENERATOR)


def _at_rest(session: ReadSession, search: Search, every: Sequence[TrialBrief]) -> bool:
    """Whether the other families have nothing under way, and nothing more to propose for now."""
    if any(trial.state in ACTIVE for trial in every) or refining.under_way(session, search.job.id):
        return False
    limit = cap(session, search)
    asked = sum(trial.origin not in FREE for trial in every)
    return (limit is not None and asked >= limit) or converging.nothing_new(session, search.job)


def _wait_or_give_up(look: Look) -> None:
    """No candidate has the base's layers: wait for one, unless none is to come."""
    if _at_rest(look.session, look.search, look.every):
        message = "a generator learns from candidates with the layers of its base, but none was scored: add merges"
        _given_up(look.session, look.search.job.id, Failure(code=InvalidInputError.code, message=message))


def _given_up(session: Session, job_id: str, failure: Failure, step: str | None = None) -> None:
    payload = {"step": step, "code": failure.code, "message": failure.message}
    events.append(session, job_id, generators.FAILED, payload)
    # Nothing else may be left that would wake the job.
    steps.ensure_advance(session, job_id)


def _fate(session: ReadSession, job: JobRecord) -> bool:
    """Whether it is known what became of it."""
    return bool(generators.ready(session, job) or events.of_kind(session, job.id, generators.FAILED))


def _ordered(session: ReadSession, job_id: str) -> list[StepRecord]:
    return steps.of_job(session, job_id, kinds=(StepKind.TRAIN_GENERATOR,))
