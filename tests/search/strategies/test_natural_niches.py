import numpy as np
import pytest
from studies import merges

from search.history import Known
from search.scores import Heard
from search.strategies.natural_niches import archive, fitness, pair
from search.study import Proposer

ANSWERS = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0]], dtype=float)


def test_an_item_is_shared_by_all_who_answer_it():
    """Two share two items, one has an item for itself: each gets 1."""
    assert fitness(ANSWERS) == pytest.approx([1, 1, 1], abs=1e-5)


def test_who_answers_what_nobody_else_does_stays():
    alike, alone = [1, 1, 0, 0], [0, 0, 1, 1]
    assert archive(np.array([alike, alike, alone, alike], dtype=float), 2) == [2, 3]


def test_the_mate_is_whoever_answers_what_one_does_not():
    found = [pair(ANSWERS, np.random.default_rng(k)) for k in range(50)]
    assert {one for one, _ in found} == {0, 1, 2}
    assert all((2 in mates) for mates in found)


def test_where_nobody_answers_anything_all_may_mate():
    found = {pair(np.zeros((3, 4)), np.random.default_rng(k)) for k in range(60)}
    assert found == {(one, other) for one in range(3) for other in range(3) if one != other}


class Outcomes:
    """Grows with the study; item j of task t is answered by who has weight j above one half."""

    def __init__(self):
        self.known = []

    def parents(self):
        return []

    def candidates(self):
        return self.known

    def correct(self, known):
        return [np.array([float(value > 0.75) for value in known.values.values()])]


def test_specialists_are_joined():
    """Each weight answers an item of its own: candidates end up with all three high."""
    compiled, outcomes = merges("task_arithmetic"), Outcomes()
    proposer = Proposer(compiled, "natural-niches", study_name="job_1", seed=2, history=outcomes, params={"archive": 8})
    scores = []
    for _ in range(60):
        proposal = proposer.ask()
        scores.append(float(np.mean([value > 0.75 for value in proposal.values.values()])))
        proposer.tell_scored(proposal.number, scores[-1], items=3)
        heard = Heard(scores[-1], 0.0, 3)
        outcomes.known.append(Known(None, proposal.number, proposal.values, heard, True))
    assert np.mean(scores[-20:]) > np.mean(scores[:10]) + 0.15
