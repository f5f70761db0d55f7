import numpy as np
import pytest
from studies import merges, record

from core.objective import TaskSpec
from core.records import HeardScore, Score
from core.states import TrialState
from search.finalists import Estimate, below_floors, best_parent, finalists, optimism, posterior, shrunk


def numbers(trials) -> list[int]:
    return [trial.number for trial in trials]


def test_the_best_fully_scored_candidates_are_ranked_by_macro():
    trials = [record(n, macro=m) for n, m in enumerate([0.5, 0.9, 0.7, 0.8])]
    assert numbers(finalists(trials, 3)) == [1, 3, 2]
    assert numbers(finalists(reversed(trials), 9)) == [1, 3, 2, 0]
    assert finalists([], 3) == []


def test_stopped_failed_and_unscored_candidates_and_parents_are_no_finalists():
    trials = [
        record(0, macro=0.99, origin="parent"),
        record(1, macro=0.98, state=TrialState.STOPPED),
        record(2, macro=None, state=TrialState.FAILED),
        record(3, macro=0.97, state=TrialState.WAITING),
        record(4, macro=0.10, origin="enqueued"),
    ]
    assert numbers(finalists(trials, 3)) == [4]


def test_one_recipe_is_one_finalist_and_the_earliest_of_its_trials():
    trials = [record(n, macro=0.9 if n < 3 else 0.8, recipe_digest="x" if n < 3 else str(n)) for n in (2, 1, 3, 4)]
    assert numbers(finalists(trials, 2)) == [1, 3]


def test_equal_macros_go_to_the_smaller_model_and_then_to_the_earlier_one():
    trials = [record(0, macro=0.9, layers=6), record(1, macro=0.9), record(2, macro=0.9)]
    assert numbers(finalists(trials, 3)) == [1, 2, 0]


def test_the_best_parent_is_chosen_on_search_items_and_the_earlier_of_equals():
    trials = [
        record(0, macro=0.4, origin="parent"),
        record(1, macro=0.6, origin="parent", macro_heldout=0.1),
        record(2, macro=0.6, origin="parent", macro_heldout=0.9),
        record(3, macro=0.9),
    ]
    assert best_parent(trials).number == 1


def test_without_a_scored_parent_there_is_nothing_to_beat():
    with pytest.raises(ValueError, match="score the parents"):
        best_parent([record(0, macro=0.9), record(1, origin="parent", state=TrialState.FAILED)])


def heard(score: float, variance: float = 0.0, items: int = 300) -> tuple[HeardScore, ...]:
    return (HeardScore(items=items, score=score, variance=variance, n=3 * items),)


def test_noisy_scores_are_drawn_towards_their_common_mean():
    scores, noise = [0.4, 0.5, 0.9], [0.01, 0.0, 0.03]
    trials = [record(n, macro=0.5, heard=heard(s, v)) for n, (s, v) in enumerate(zip(scores, noise, strict=True))]
    found = shrunk(trials)
    # Mean 0.6; sample variance (0.04 + 0.01 + 0.09) / 2 = 0.07, less the mean noise of 0.04 / 3.
    spread = 0.07 - 0.04 / 3
    assert found[0].mean == pytest.approx((spread * 0.4 + 0.01 * 0.6) / (spread + 0.01))
    assert found[0].sd == pytest.approx((spread * 0.01 / (spread + 0.01)) ** 0.5)
    assert found[1] == (0.5, 0.0)  # Whoever has no noise stays where it is.
    assert found[2].mean == pytest.approx((spread * 0.9 + 0.03 * 0.6) / (spread + 0.03))


def test_scores_that_differ_by_no_more_than_their_noise_all_become_their_mean():
    trials = [record(n, macro=0.5, heard=heard(s, 0.01)) for n, s in enumerate([0.5, 0.51, 0.52])]
    assert [estimate.mean for estimate in shrunk(trials).values()] == pytest.approx([0.51] * 3)


def test_two_candidates_say_nothing_of_their_spread_and_stay_as_they_are():
    trials = [record(0, macro=0.4, heard=heard(0.4, 0.04)), record(1, macro=0.9)]
    assert shrunk(trials) == {0: (0.4, 0.2), 1: (0.9, 0.0)}


def test_finalists_are_ranked_by_what_they_are_likely_to_be_worth():
    trials = [record(n, macro=m) for n, m in enumerate([0.9, 0.8, 0.7])]
    estimates = {0: Estimate(0.6, 0.1), 1: Estimate(0.65, 0.1), 2: Estimate(0.5, 0.0)}
    assert numbers(finalists(trials, 3, estimates)) == [1, 0, 2]


def test_the_posterior_pools_neighbours_and_stopped_candidates():
    compiled = merges("linear")

    def at(number: int, weight: float, score: float, **fields):
        values = dict.fromkeys(("merge.linear.weight.a", "merge.linear.weight.b", "merge.linear.weight.c"), weight)
        scores = heard(score, 1e-3, fields.get("scored_items", 300))
        return record(number, macro=score, values=values, heard=scores, **fields)

    ladder = [at(n, 0.05 + 0.1 * n, 0.5 + 0.02 * n) for n in range(8)]
    lucky = at(8, 0.26, 0.62)  # Between neighbours that score about 0.54.
    stopped = at(9, 0.3, 0.55, state=TrialState.STOPPED, scored_items=100)
    parent = record(10, macro=0.9, origin="parent", heard=heard(0.9))
    found = posterior(compiled, [*ladder, lucky, stopped, parent])
    assert set(found) == set(range(9))
    assert 0.53 < found[8].mean < 0.60
    assert found[7].mean == pytest.approx(0.64, abs=0.03)


def test_a_task_on_which_more_is_lost_than_its_floor_is_named():
    def scores(*values: float) -> tuple[Score, ...]:
        tasks = zip(("x", "y", "z"), values, strict=True)
        return tuple(Score(task=task, metric="acc", value=value, stderr=0.01, n=300) for task, value in tasks)

    specs = [TaskSpec(task="x", floor=2), TaskSpec(task="y", floor=2), TaskSpec(task="z")]
    parent = record(0, macro=0.5, origin="parent", scores=scores(0.5, 0.5, 0.5))
    found = below_floors(record(1, macro=0.5, scores=scores(0.48, 0.47, 0.1)), parent, specs)
    assert found == [("y", pytest.approx(-3.0), 2.0)]


def test_optimism_is_what_climbing_on_a_sample_of_items_adds():
    """A bowl in ten directions and a smooth error whose slope is drawn anew: the error at the top of their sum."""
    rng, dimensions, curvature, distance = np.random.default_rng(0), 10, 20.0, 0.5
    slope_sd = 0.1
    slopes = slope_sd * rng.standard_normal((4000, dimensions))
    found = slopes / curvature  # where -curvature x^2 / 2 + slope x is highest
    added = (slopes * found).sum(1).mean()
    gain, variance = curvature * distance**2 / 2, slope_sd**2 * distance**2
    assert optimism(gain, variance, dimensions) == pytest.approx(added, rel=0.03)


def test_optimism_takes_no_more_than_the_gain():
    assert optimism(0.02, 4e-6, 10) == pytest.approx(0.001)
    assert optimism(0.001, 4e-6, 10) == 0.001
    assert optimism(0.0, 4e-6, 10) == optimism(-0.02, 4e-6, 10) == 0.0
    assert optimism(0.02, 4e-6, 0) == 0.0
