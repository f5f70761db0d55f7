from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from core.records import HeardScore, TrialBrief
from core.states import TrialState
from search.racing import Decision
from workers.phases import judging

RUNGS = (6, 12, 24)


def brief(number: int, scored: int = 6, *, score: float | None = None, **fields) -> TrialBrief:
    """A trial that waits after `scored` items and was heard at every rung it passed, if it has a score."""
    heard = [HeardScore(items=k, score=score, variance=0.0, n=k) for k in RUNGS if k <= scored and score is not None]
    known = {
        "id": f"trial_{number}",
        "number": number,
        "optuna_number": number,
        "origin": "proposed",
        "label": "",
        "state": TrialState.WAITING,
        "recipe_digest": str(number),
        "rung": 0,
        "target_items": scored,
        "scored_items": scored,
        "macro": score,
        "heard": tuple(heard),
        "told": False,
        "seconds": 0.0,
        "created_at": datetime(2026, 1, 1, tzinfo=UTC),
        "finished_at": None,
    }
    return TrialBrief(**(known | fields))


def word(trial, others, *, rungs=RUNGS, whole=False, ready=True):
    search = SimpleNamespace(rungs=rungs, job=SimpleNamespace(request=SimpleNamespace(racing=SimpleNamespace(eta=3))))
    return judging._word(search, trial, [trial, *others], whole=whole, ready=ready)


def test_candidates_are_raced_on_what_was_heard_at_their_rung():
    rivals = [brief(n, 24, score=n / 10) for n in range(1, 6)]
    assert word(brief(9, score=0.45), rivals) == (Decision.RAISE, 1)
    assert word(brief(9, score=0.35), rivals) == (Decision.STOP, 1)
    assert word(brief(9, 12, score=0.45), rivals) == (Decision.RAISE, 2)
    assert word(brief(9, 24, score=0.0), rivals)[0] is Decision.FINISH


def test_before_anybody_is_heard_only_the_first_of_a_rung_go_on():
    one, more = [brief(1)], [brief(1), brief(2)]
    assert word(brief(9), one, ready=False) == (Decision.RAISE, 1)
    assert word(brief(9), more, ready=False)[0] is None
    # Others that have not come so far do not count, those that went on do.
    assert word(brief(9), [brief(1), brief(2, 0)], ready=False)[0] is Decision.RAISE
    assert word(brief(9, 24), [], ready=False)[0] is None
    assert word(brief(9), more, whole=True, ready=False) == (Decision.RAISE, 1)


def test_a_parent_that_is_out_counts_as_beaten_at_the_rungs_that_it_did_not_reach():
    out = brief(1, 6, score=0.9, origin="parent", state=TrialState.STOPPED)
    rivals = [out, *(brief(n, 24, score=0.5) for n in (2, 3, 4, 5))]
    # Of six the second best goes on; of five it would not.
    assert word(brief(9, 12, score=0.4), rivals)[0] is Decision.STOP
    assert word(
        brief(9, 12, score=0.45), [out, brief(2, 24, score=0.5), *(brief(n, 24, score=0.1) for n in (3, 4, 5))]
    ) == (
        Decision.RAISE,
        2,
    )
    assert (
        word(brief(9, 12, score=0.45), [brief(2, 24, score=0.5), *(brief(n, 24, score=0.1) for n in (3, 4, 5))])[0]
        is Decision.STOP
    )
    assert word(brief(9, 12), [out, brief(2, 24)], ready=False)[0] is None
    assert word(brief(9, 12), [brief(2, 24)], ready=False)[0] is Decision.RAISE


def test_whoever_was_scored_on_less_than_the_first_rung_that_stayed_goes_on_to_it():
    rivals = [brief(n, 24, score=0.9) for n in range(9)]
    assert word(brief(10, score=0.1), rivals, rungs=(12, 24)) == (Decision.RAISE, 0)
    # Between two rungs that stayed, the one it has passed counts.
    assert word(brief(10, 12, score=0.1), rivals, rungs=(6, 24)) == (Decision.STOP, 1)


@pytest.mark.parametrize(
    ("state", "target", "busy"),
    [
        (TrialState.QUEUED, 6, True),
        (TrialState.RUNNING, 6, True),
        (TrialState.WAITING, 12, True),
        (TrialState.WAITING, 6, False),
        (TrialState.SCORED, 6, False),
    ],
)
def test_whoever_waits_for_a_word_keeps_no_worker_busy(state, target, busy):
    assert judging.under_way(brief(1, 6, state=state, target_items=target)) is busy


def test_the_one_to_complete_came_furthest_and_then_scored_best():
    stopped = {"state": TrialState.STOPPED}
    trials = [brief(1, 6, score=0.9, **stopped), brief(2, 12, score=0.5, **stopped), brief(3, 12, score=0.6, **stopped)]
    assert judging.to_complete(trials).number == 3
    assert judging.to_complete([*trials, brief(4, 24, score=0.1, state=TrialState.SCORED)]) is None
    assert judging.to_complete([*trials, brief(4, origin="completed", state=TrialState.FAILED)]) is None
