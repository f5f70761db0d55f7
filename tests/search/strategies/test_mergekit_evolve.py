import numpy as np
import pytest
from studies import merges, space, toy

from search.evolution import Evolution
from search.seeding import entropy
from search.strategies import strategy
from search.study import Proposer

SEED = 4
COMPILED = merges("task_arithmetic", params={"weight": {"low": 0.0, "high": 10.0}})
NAMES = [hole.name for hole in COMPILED.holes]


def normal(number: int):
    return np.random.default_rng(entropy(SEED, number)).standard_normal(3)


def study() -> Proposer:
    return Proposer(COMPILED, "mergekit-evolve", study_name="job_1", seed=SEED)


def vector(proposal):
    return np.array([proposal.values[name] for name in NAMES])


def test_the_first_two_generations_are_the_tools():
    """Seven around one third with sigma one sixth, weights by absolute value; then those of the next state."""
    state, proposer = Evolution.start(np.full(3, 1 / 3), 1 / 6), study()
    for generation in range(2):
        numbers = range(7 * generation, 7 * generation + 7)
        points = np.array([state.point(normal(number)) for number in numbers])
        losses = []
        for point, number in zip(points, numbers, strict=True):
            proposal = proposer.ask()
            assert proposal.number == number
            assert vector(proposal) == pytest.approx(np.abs(point))
            losses.append(-toy(proposal.values))
            proposer.tell_scored(number, -losses[-1], items=900)
        state = state.after(points, np.array(losses))
    assert state.size == 7


def test_densities_start_at_one_and_are_clipped():
    compiled = merges("ties", params={"weight": {"low": 0.0, "high": 10.0}, "density": {"low": 0.0, "high": 1.0}})
    proposer = Proposer(compiled, "mergekit-evolve", study_name="job_1", seed=SEED)
    found = [proposer.ask().values for _ in range(60)]
    densities = np.array([[values[f"merge.ties.density.{s}"] for s in "abc"] for values in found])
    assert densities.max() == 1.0
    assert 0.3 < (densities == 1.0).mean() < 0.7
    assert densities.min() > 1 - 4 / 6


def test_who_asks_before_a_generation_has_finished_teaches_it_nothing():
    """Whatever the extra draws score, and whenever they finish, the next generation is the same."""
    found = []
    for extra_score in (0.0, 0.9):
        proposer = study()
        proposals = [proposer.ask() for _ in range(10)]
        for proposal in reversed(proposals):
            score = toy(proposal.values) if proposal.number < 7 else extra_score
            proposer.tell_scored(proposal.number, score, items=900)
        found.append(proposer.ask().values)
    assert found[0] == found[1]


def test_a_generation_waits_for_its_last_member():
    proposer = study()
    proposals = [proposer.ask() for _ in range(7)]
    for proposal in proposals[1:]:
        proposer.tell_scored(proposal.number, toy(proposal.values), items=900)
    first = Evolution.start(np.full(3, 1 / 3), 1 / 6)
    assert vector(proposer.ask()) == pytest.approx(np.abs(first.point(normal(7))))
    proposer.tell_failed(0)
    points = np.array([first.point(normal(number)) for number in range(7)])
    losses = np.array([np.inf, *(-toy(proposal.values) for proposal in proposals[1:])])
    assert vector(proposer.ask()) == pytest.approx(np.abs(first.after(points, losses).point(normal(8))))


def test_enqueued_candidates_are_no_members():
    proposer = study()
    proposer.enqueue(dict.fromkeys(NAMES, 0.25))
    proposer.tell_scored(proposer.ask().number, 0.99, items=900)
    first = Evolution.start(np.full(3, 1 / 3), 1 / 6)
    points = []
    for number in range(1, 8):
        proposal = proposer.ask()
        points.append(first.point(normal(number)))
        assert vector(proposal) == pytest.approx(np.abs(points[-1]))
        proposer.tell_scored(number, toy(proposal.values), items=900)
    losses = [-toy(dict(zip(NAMES, np.abs(point), strict=True))) for point in points]
    expected = first.after(np.array(points), np.array(losses)).point(normal(8))
    assert vector(proposer.ask()) == pytest.approx(np.abs(expected))


def test_it_is_the_naive_baseline():
    info = strategy("mergekit-evolve").info
    assert (info.races, info.hears, info.recommends) == (False, "accuracy", "best")


def test_several_structures_take_turns():
    proposer = Proposer(space(), "mergekit-evolve", study_name="job_1", seed=1)
    found = [proposer.ask().values for _ in range(7)]
    assert [values.get("merge.method") for values in found[:5]] == [
        "linear",
        "slerp",
        "task_arithmetic",
        "ties",
        "dare_ties",
    ]
    assert [values["layout.preset"] for values in found[5:]] == ["dus", "idus"]
