from statistics import mean

import numpy as np
from studies import merges, space, toy

from search.strategies.cmaes import Course, Run, _least_sd
from search.study import Proposer
from search.unit import Cubes


def best(name: str, compiled, seed: int, budget: int, score=toy) -> float:
    proposer, found = Proposer(compiled, name, study_name="job_1", seed=seed), []
    for _ in range(budget):
        proposal = proposer.ask()
        found.append(score(proposal.values))
        proposer.tell_scored(proposal.number, found[-1], items=900)
    return max(found)


def test_it_closes_in_on_the_optimum():
    compiled = merges("task_arithmetic")
    gaps = {name: mean(1 - best(name, compiled, seed, 100) for seed in range(4)) for name in ("cmaes", "random")}
    assert gaps["cmaes"] < 0.5 * gaps["random"], gaps


def test_the_better_structure_is_tried_most():
    compiled = space()
    proposer = Proposer(compiled, "cmaes", study_name="job_1", seed=2)
    counts: dict[str, int] = {}
    for _ in range(150):
        proposal = proposer.ask()
        method = str(proposal.values.get("merge.method", "layout"))
        counts[method] = counts.get(method, 0) + 1
        good = 0.9 if method == "ties" else 0.3
        proposer.tell_scored(proposal.number, good + 0.01 * toy(proposal.values), items=900)
    assert counts["ties"] > 2 * max(count for method, count in counts.items() if method not in ("ties", "layout"))


def test_whole_numbers_never_become_certain():
    """A score that says nothing but `m = 2`: after 200 candidates other values of m are still drawn now and then."""
    compiled = space(
        {"family": "layout", "presets": ["dus"], "sources": ["a"], "repeated": {"attention": {"low": 0.1, "high": 1}}}
    )
    assert any(hole.name == "layout.dus.m" for hole in compiled.holes)
    proposer, drawn = Proposer(compiled, "cmaes", study_name="job_1", seed=3), []
    for _ in range(200):
        proposal = proposer.ask()
        drawn.append(proposal.values["layout.dus.m"])
        proposer.tell_scored(proposal.number, -abs(drawn[-1] - 2), items=900)
    assert len(set(drawn[-60:])) > 1
    assert drawn[-60:].count(2) > 30


def test_the_margin_is_the_chance_to_leave_a_cell():
    """A cell of width 0.2 is left with 5 % at a standard deviation of 0.1 / 1.96."""
    assert np.isclose(_least_sd(0.2, 0.05), 0.1 / 1.959964)


def test_a_run_that_has_converged_starts_again_with_twice_the_population():
    structure = Cubes(merges("task_arithmetic")).structures[0]
    course = Course(structure, 0, np.full(3, 0.5), seed=1, sigma=1e-3)
    assert isinstance(course.start, Run)
    following = course.after(course.start, list(range(7)), [float(k) for k in range(7)])
    assert following.restarts == 1
    assert following.evolution.size == 2 * course.start.evolution.size
    assert not np.allclose(following.evolution.mean, 0.5)
