"""How far a job is: pure arithmetic over its record and its trials."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from datetime import datetime

from api.schemas.jobs import BestOut, BudgetUse, ParentOut, Progress
from api.schemas.trials import ScoreOut
from core.objective import Objective
from core.records import FREE, JobRecord, Score, TrialSummary
from core.states import JobState


def progress_of(
    job: JobRecord, trials: Sequence[TrialSummary], now: datetime, *, other_seconds: float = 0.0
) -> Progress:
    """A job's progress at a moment.

    Args:
        job: the job.
        trials: all of its trials, by number.
        now: the moment, aware.
        other_seconds: seconds of devices beside those of the trials: refinement, and the training of a generator.
    """
    parents = [trial for trial in trials if trial.origin == "parent"]
    candidates = [trial for trial in trials if trial.origin != "parent"]
    seconds = elapsed(job, now)
    budget = _budget(job, trials, seconds, other_seconds)
    return Progress(
        trials=dict(sorted(Counter(trial.state.value for trial in candidates).items())),
        budget=budget,
        items_scored=job.items_scored,
        items_per_second=job.items_scored / seconds if seconds > 0 else None,
        seconds=seconds,
        eta_seconds=_eta(budget, seconds) if job.state is JobState.RUNNING else None,
        best=_best_out(job, leading(candidates)),
        best_parent=_best_out(job, leading(parents)),
        parents=tuple(_parent(trial) for trial in parents),
        heldout_reads=job.heldout_reads,
    )


def comparable(trials: Sequence[TrialSummary]) -> list[TrialSummary]:
    """The trials scored on most items: a score on fewer is too noisy to compete with theirs."""
    scored = [trial for trial in trials if trial.macro is not None]
    most = max((trial.scored_items for trial in scored), default=0)
    return [trial for trial in scored if trial.scored_items == most]


def leading(trials: Sequence[TrialSummary]) -> TrialSummary | None:
    """The best of the comparable trials; of equals, the first."""
    return max(comparable(trials), key=lambda trial: (trial.macro or 0.0, -trial.number), default=None)


def macro_stderr(objective: Objective, scores: Sequence[Score]) -> float:
    """Standard error of the weighted mean: tasks are independent, so variances add with squared shares."""
    shares = {spec.task: share for spec, share in zip(objective.tasks, objective.shares, strict=True)}
    return math.sqrt(math.fsum((shares.get(score.task, 0.0) * score.stderr) ** 2 for score in scores))


def elapsed(job: JobRecord, now: datetime) -> float:
    """Seconds that the job has run, until it ended; pauses do not count."""
    return job.running_seconds(now)


def _budget(
    job: JobRecord, trials: Sequence[TrialSummary], seconds: float, other_seconds: float
) -> tuple[BudgetUse, ...]:
    used = {
        "trials": sum(trial.origin not in FREE for trial in trials),
        "item_evaluations": job.items_scored,
        "seconds": seconds,
        "device_seconds": other_seconds + math.fsum(trial.seconds for trial in trials),
    }
    return tuple(
        BudgetUse.model_validate(
            {
                "limit": name,
                "used": used[name],
                "allowed": allowed,
                "share": min(1.0, used[name] / allowed) if allowed else 1.0,
            }
        )
        for name, allowed in job.request.budget.amounts.items()
        if allowed is not None
    )


def _eta(budget: Sequence[BudgetUse], seconds: float) -> float | None:
    """Seconds until the first limit is reached, each limit filling at its pace so far."""
    left = [seconds * (1 - use.share) / use.share for use in budget if use.share > 0]
    left += [use.allowed - seconds for use in budget if use.limit == "seconds" and use.share == 0]
    return min(left, default=None) if seconds > 0 else None


def _best_out(job: JobRecord, trial: TrialSummary | None) -> BestOut | None:
    if trial is None or trial.macro is None:
        return None
    return BestOut(
        trial_id=trial.id,
        number=trial.number,
        label=trial.label,
        macro=trial.macro,
        stderr=macro_stderr(job.request.objective, trial.scores),
        scored_items=trial.scored_items,
    )


def _parent(trial: TrialSummary) -> ParentOut:
    return ParentOut(
        trial_id=trial.id,
        label=trial.label,
        state=trial.state.value,
        scored_items=trial.scored_items,
        scores=ScoreOut.all_of(trial.scores),
        macro=trial.macro,
        macro_heldout=trial.macro_heldout,
    )
