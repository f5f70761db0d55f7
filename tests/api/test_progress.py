from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from api.progress import comparable, elapsed, leading, macro_stderr, progress_of
from core.jobs import SearchJob
from core.objective import Objective, TaskSpec
from core.records import JobRecord, Score, TrialSummary
from core.states import JobState, TrialState
from tests.api import seeds

START = datetime(2026, 11, 20, 12, tzinfo=UTC)


def job(state: JobState = JobState.RUNNING, *, items: int = 0, finished: float | None = None, **changes) -> JobRecord:
    return JobRecord(
        id="job_1",
        kind="search",
        name="",
        state=state,
        request=SearchJob.model_validate(seeds.body(**changes)),
        items_scored=items,
        created_at=START,
        started_at=START,
        finished_at=None if finished is None else START + timedelta(seconds=finished),
    )


def summary(number: int, macro: float | None, items: int = 200, **fields) -> TrialSummary:
    return TrialSummary.model_validate(
        {
            "id": f"trial_{number}",
            "job_id": "job_1",
            "number": number,
            "origin": "proposed",
            "state": TrialState.SCORED,
            "family": "merge",
            "method": "linear",
            "target_items": 200,
            "scored_items": items,
            "macro": macro,
            "created_at": START,
            **fields,
        }
    )


def test_a_high_score_on_few_items_does_not_lead():
    trials = [summary(0, 0.5), summary(1, 0.9, items=50), summary(2, 0.6), summary(3, 0.6), summary(4, None, items=0)]
    assert [trial.number for trial in comparable(trials)] == [0, 2, 3]
    found = leading(trials)
    assert found is not None and found.number == 2


def test_before_anyone_is_promoted_all_are_compared():
    found = leading([summary(0, 0.5, items=50), summary(1, 0.7, items=50)])
    assert found is not None and found.number == 1
    assert leading([]) is None


def test_the_error_of_a_weighted_mean_adds_variances_by_squared_shares():
    objective = Objective(tasks=(TaskSpec(task="a", weight=3.0), TaskSpec(task="b", weight=1.0)))
    scores = [Score(task=name, metric="acc", value=0.5, stderr=err, n=10) for name, err in (("a", 0.04), ("b", 0.16))]
    # (3/4 * 0.04)^2 + (1/4 * 0.16)^2 = 0.0009 + 0.0016
    assert macro_stderr(objective, scores) == pytest.approx(0.05)


def test_the_budget_counts_candidates_and_not_parents():
    parents = [summary(n, 0.5, origin="parent", label="p") for n in range(3)]
    candidates = [
        summary(3, 0.6),
        summary(4, None, state=TrialState.RUNNING),
        summary(5, None, state=TrialState.FAILED),
    ]
    found = progress_of(job(items=6000), [*parents, *candidates], START + timedelta(seconds=360))
    assert found.trials == {"failed": 1, "running": 1, "scored": 1}
    assert found.items_per_second == pytest.approx(6000 / 360)
    assert progress_of(job(), [], START).items_per_second is None
    assert [(use.limit, use.used, use.allowed, use.share) for use in found.budget] == [
        ("trials", 3, 40, 0.075),
        ("item_evaluations", 6000, 60000, 0.1),
        ("seconds", 360, 3600, 0.1),
    ]
    assert len(found.parents) == 3
    assert found.best is not None and found.best.number == 3
    assert found.best_parent is not None and found.best_parent.number == 0


def test_the_remaining_time_is_that_of_the_limit_that_is_reached_first():
    trials = [summary(n, 0.5) for n in range(20)]
    now = START + timedelta(seconds=100)
    # 20 of 40 candidates in 100 s: 100 s more; a tenth of the items: 900 s; 3600 s: 3500 s.
    assert progress_of(job(items=6000), trials, now).eta_seconds == pytest.approx(100)
    assert progress_of(job(budget={"seconds": 3600}), [], now).eta_seconds == pytest.approx(3500)


def test_without_a_pace_or_an_end_there_is_no_remaining_time():
    now = START + timedelta(seconds=100)
    assert progress_of(job(budget={"trials": 40}), [], now).eta_seconds is None
    assert progress_of(job(JobState.SUCCEEDED, finished=50), [summary(0, 0.5)], now).eta_seconds is None
    assert progress_of(job(JobState.PAUSED), [summary(0, 0.5)], now).eta_seconds is None


def test_the_clock_stops_with_the_job():
    assert elapsed(job(JobState.SUCCEEDED, finished=50), START + timedelta(seconds=100)) == 50
    assert elapsed(job().evolve(started_at=None), START) == 0


def test_a_budget_that_is_overrun_is_full():
    found = progress_of(job(budget={"trials": 2}), [summary(n, 0.5) for n in range(3)], START)
    assert found.budget[0].share == 1.0
