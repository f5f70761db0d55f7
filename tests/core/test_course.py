from datetime import UTC, datetime, timedelta

from core.course import Passed, Peak, Spent, best_so_far, survival
from core.records import TrialSummary
from core.states import TrialState

START = datetime(2026, 1, 1, tzinfo=UTC)


def at(seconds):
    return START + timedelta(seconds=seconds)


def trial(number, macro, *, items=100, state=TrialState.SCORED, ended=0, origin="proposed"):
    return TrialSummary(
        id=f"trial_{number}",
        job_id="job_1",
        number=number,
        origin=origin,
        state=state,
        family="merge",
        method="linear",
        target_items=items,
        scored_items=items,
        macro=macro,
        created_at=START,
        finished_at=at(ended),
    )


def test_leaders_follow_one_another_with_the_items_spent_until_then():
    spent = [Spent(at(30), 50), Spent(at(10), 200), Spent(at(20), 100)]
    trials = [
        trial(0, 0.9, ended=5, origin="parent"),
        trial(1, 0.5, ended=11),
        trial(2, 0.4, ended=21),
        trial(3, 0.6, ended=31),
        trial(4, 0.8, ended=31, state=TrialState.STOPPED),
    ]
    assert best_so_far(spent, trials) == (Peak(200, 0.5, 1), Peak(350, 0.6, 3))
    assert best_so_far([], [trial(1, 0.5)]) == (Peak(0, 0.5, 1),)
    assert best_so_far(spent, []) == ()


def test_who_reached_a_rung_and_who_was_stopped_there():
    stopped = TrialState.STOPPED
    trials = [
        trial(0, 0.9, origin="parent"),
        trial(1, 0.5),
        trial(2, 0.5, items=10, state=stopped),
        trial(3, 0.5, items=10, state=stopped),
        trial(4, 0.5, items=30, state=stopped),
        trial(5, None, items=0, state=TrialState.FAILED),
    ]
    assert survival(trials, (10, 30, 100)) == (Passed(10, 4, 2), Passed(30, 2, 1), Passed(100, 1, 0))
