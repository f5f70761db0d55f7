import numpy as np
import pytest
from studies import merges

from search.strategies import strategy
from search.strategies.nsga2 import crowding, front_of, ranked
from search.strategy import Goal
from search.study import Proposer

GOALS = np.array([[1.0, 5.0], [2.0, 4.0], [4.0, 1.0], [1.0, 4.0], [0.0, 0.0], [2.0, 4.0]])


def test_fronts_are_those_worked_by_hand():
    assert front_of(GOALS).tolist() == [0, 0, 0, 1, 2, 0]


def test_crowding_is_that_worked_by_hand():
    """Three on a line: the ends are infinitely lonely, the middle spans the whole range of both goals."""
    assert crowding(np.array([[0.0, 4.0], [1.0, 3.0], [4.0, 0.0]])).tolist() == [np.inf, 2.0, np.inf]


def test_the_order_is_by_front_and_then_by_loneliness():
    assert ranked(GOALS)[-2:] == [3, 4]
    assert set(ranked(GOALS)[:2]) == {0, 2}


@pytest.mark.parametrize(
    ("chosen", "names"),
    [
        ("tasks", ["arc", "hellaswag"]),
        ("tasks+layers+seconds", ["arc", "hellaswag", "layers", "seconds"]),
        ("score+seconds", ["score", "seconds"]),
    ],
)
def test_goals_are_what_is_asked_for(chosen, names):
    found = strategy("nsga2").goals({"goals": chosen}, ["arc", "hellaswag"])
    assert [goal.name for goal in found] == names
    assert all(goal.direction == ("minimize" if goal.name in ("layers", "seconds") else "maximize") for goal in found)


def test_without_tasks_the_score_stands_for_them():
    assert strategy("nsga2").goals({"goals": "tasks"}, []) == (Goal("score"),)


def hypervolume(front) -> float:
    """Of two goals, both high, above the origin."""
    volume, height = 0.0, 0.0
    for one, other in sorted(front, reverse=True):
        volume += one * max(other - height, 0.0)
        height = max(height, other)
    return volume


def searched(name: str, seed: int) -> float:
    """Two tasks whose best weights differ."""
    compiled = merges("task_arithmetic")
    params = {"population": 16} if name == "nsga2" else {}
    proposer = Proposer(compiled, name, study_name="job_1", seed=seed, params=params, tasks=["x", "y"])
    found = []
    for _ in range(150):
        proposal = proposer.ask()
        w = np.array([proposal.values[f"merge.task_arithmetic.weight.{s}"] for s in "abc"]) / 1.5
        tasks = {"x": float(np.exp(-4 * ((w - 0.2) ** 2).sum())), "y": float(np.exp(-4 * ((w - 0.7) ** 2).sum()))}
        found.append((tasks["x"], tasks["y"]))
        proposer.tell_scored(proposal.number, sum(tasks.values()) / 2, items=900, goals=tasks)
    return hypervolume(found)


def test_its_front_is_better_than_that_of_random_draws():
    ours, theirs = (np.mean([searched(name, seed) for seed in range(3)]) for name in ("nsga2", "random"))
    assert ours > theirs + 0.01
