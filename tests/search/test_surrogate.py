import math

import numpy as np
import pytest
from studies import merges, space

from search.gaussian import Data, fit
from search.past import Past
from search.surrogate import CLIP, KEPT, Surrogate, expected_improvement, gather, improvement, posterior_of
from search.unit import Cubes

COMPILED = merges("task_arithmetic")
CUBES = Cubes(COMPILED)
OWN = CUBES.structures[0].owners


def truth(point) -> float:
    return 0.7 - 0.1 * float(((point - [0.6, 0.3, 0.8]) ** 2).sum())


def trials(count: int, *, seed: int = 0, sd: float = 0.01, state="complete") -> list[Past]:
    rng, structure = np.random.default_rng(seed), CUBES.structures[0]
    return [
        Past(k, state, structure.decode(u), truth(u) + sd * rng.standard_normal(), sd**2, 100)
        for k, u in enumerate(rng.random((count, 3)))
    ]


def test_the_posterior_is_nearer_to_the_truth_than_the_scores():
    pasts = trials(60)
    found = posterior_of(COMPILED, pasts)
    true = np.array([truth(CUBES.locate(past.values)[1]) for past in pasts])
    scores, means = np.array([past.score for past in pasts]), np.array([found[past.number][0] for past in pasts])
    assert list(found) == [past.number for past in pasts]
    assert np.std(means - true) < 0.5 * np.std(scores - true)


def test_its_spread_covers_the_truth():
    pasts = trials(60, seed=3)
    found = posterior_of(COMPILED, pasts)
    off = [abs(found[past.number][0] - truth(CUBES.locate(past.values)[1])) / found[past.number][1] for past in pasts]
    assert np.mean(np.array(off) < 2) > 0.85


def test_a_lucky_score_on_few_items_is_not_believed():
    pasts = trials(30, sd=0.001)
    lucky = Past(30, "stopped", pasts[0].values | {"merge.task_arithmetic.weight.a": 0.1}, 0.8, 0.05**2, 10)
    mean, _ = posterior_of(COMPILED, [*pasts, lucky])[30]
    assert abs(mean - truth(CUBES.locate(lucky.values)[1])) < 0.02


def test_running_and_failed_trials_have_no_posterior():
    pasts = trials(5)
    others = [Past(5, "running", pasts[0].values | {"merge.task_arithmetic.weight.b": 0.2}), Past(6, "failed", {})]
    assert list(posterior_of(COMPILED, [*pasts, *others])) == [0, 1, 2, 3, 4]


def test_a_study_without_scores_promises_everything():
    assert expected_improvement(COMPILED, []) == math.inf
    assert posterior_of(COMPILED, []) == {}


def test_the_promise_falls_as_the_best_is_found():
    optimum = CUBES.structures[0].decode(np.array([0.6, 0.3, 0.8]))
    few = expected_improvement(COMPILED, trials(8, sd=0.001))
    best = Past(80, "complete", optimum, 0.7, 1e-6, 100)
    many = expected_improvement(COMPILED, [*trials(80, sd=0.001), best])
    assert few > 0.003
    assert many < 0.001


def test_improvement_is_the_textbooks():
    """At the incumbent's own mean it is sd / sqrt(2 pi); far above, the difference; far below, nothing."""
    found = improvement(np.array([0.5, 5.5, -4.5]), np.array([0.1, 0.1, 0.1]), 0.5)
    assert found == pytest.approx([0.1 / math.sqrt(2 * math.pi), 5.0, 0.0])


def test_collapsed_merges_are_raised_to_the_floor_and_failures_count_as_it():
    pasts = trials(20, sd=0.001)
    values = [pasts[0].values | {"merge.task_arithmetic.weight.c": share} for share in (0.11, 0.22)]
    collapsed, failed = Past(20, "complete", values[0], 0.01), Past(21, "failed", values[1])
    seen = gather(CUBES, [*pasts, collapsed, failed])[0]
    floor = np.quantile([*(past.score for past in pasts), 0.01], 0.9) - CLIP
    assert seen.scores[20:] == pytest.approx([floor, floor])
    assert seen.told[20:] == [True, False]
    assert seen.noise[21] > seen.noise[0]


def test_a_proposal_closed_as_a_repeat_is_no_failure():
    pasts = trials(4)
    seen = gather(CUBES, [*pasts, Past(4, "failed", pasts[2].values)])[0]
    assert seen.numbers == [0, 1, 2, 3]


def test_an_unseen_structure_has_the_level_and_at_least_the_spread_of_all():
    cubes = Cubes(space())
    rng, structure = np.random.default_rng(5), cubes.structures[2]
    pasts = [Past(k, "complete", structure.decode(u), truth(u), 1e-5) for k, u in enumerate(rng.random((20, 3)))]
    unseen = Surrogate(cubes, pasts).beliefs[3]
    mean, sd = unseen.mean_and_sd(np.full((1, unseen.structure.size), 0.5))
    scores = [past.score for past in pasts]
    assert mean[0] == pytest.approx(np.mean(scores), abs=0.01)
    assert sd[0] > np.std(scores)


def test_a_structure_that_began_low_is_believed_to_have_room_as_others_had():
    """Where one structure rose by ten points from its start, three equal scores of another do not settle it."""
    cubes = Cubes(space())
    rng, (one, other) = np.random.default_rng(6), cubes.structures[2:4]

    def promise(wide: bool) -> float:
        rows = [(one, u, truth(u) if wide else 0.6) for u in rng.random((20, 3))]
        rows += [(other, u, 0.59) for u in rng.random((3, other.size))]
        pasts = [Past(k, "complete", s.decode(u), score, 1e-5) for k, (s, u, score) in enumerate(rows)]
        return float(Surrogate(cubes, pasts).beliefs[3].mean_and_sd(rng.random((200, other.size)))[1].max())

    assert promise(wide=True) > 4 * promise(wide=False)


def test_one_structure_alone_has_the_usual_prior():
    pasts = trials(12)
    belief, seen = Surrogate(CUBES, pasts).beliefs[0], gather(CUBES, pasts)[0]
    scores = np.array(seen.scores)
    data = Data(
        np.array(seen.points), (scores - scores.mean()) / scores.std(), np.array(seen.noise) / scores.var(), OWN
    )
    assert belief.process.theta == pytest.approx(fit(data).theta, rel=1e-6)


def test_of_many_results_the_best_the_latest_and_the_remote_are_kept():
    pasts = trials(2 * KEPT)
    belief = Surrogate(CUBES, pasts).beliefs[0]
    scores = [past.score for past in pasts]
    assert len(belief.told) == KEPT
    assert int(np.argmax(scores)) in belief.told
    assert 2 * KEPT - 1 in belief.told
    assert abs(belief.best() - 0.7) < 0.01
