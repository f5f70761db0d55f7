import numpy as np
from studies import space

from search.breeding import crossed, members, mutated
from search.past import Past
from search.unit import Cubes

CUBES = Cubes(space())
LINEAR, SLERP, TIES = (CUBES.structures[at] for at in (0, 1, 3))


def member(structure, point, number=0):
    return members(CUBES, [Past(number, "complete", structure.decode(np.array(point)), 0.5)])[0]


def halves(one, other, rng):
    return (one + other) / 2


def test_candidates_of_two_methods_cross_in_the_weights_they_share():
    one, other = member(TIES, [0.2] * 6), member(LINEAR, [0.6] * 3)
    child = crossed(CUBES, one, other, halves, np.random.default_rng(0))
    weights = [hole.name.startswith("merge.ties.weight") for hole in TIES.free]
    assert np.allclose(child[weights], 0.4)
    assert np.allclose(child[np.logical_not(weights)], 0.2)


def test_without_anything_in_common_a_child_is_its_first_parent():
    child = crossed(CUBES, member(LINEAR, [0.1, 0.2, 0.3]), member(SLERP, [0.5, 0.5]), halves, np.random.default_rng(0))
    assert np.allclose(child, [0.1, 0.2, 0.3])


def test_of_a_choice_one_parents_is_taken():
    first, last = member(SLERP, [0.1, 0.5]), member(SLERP, [0.9, 0.5])
    choice = next(at for at, hole in enumerate(SLERP.free) if hole.name.endswith("pair"))
    found = {round(float(crossed(CUBES, first, last, halves, np.random.default_rng(k))[choice]), 3) for k in range(20)}
    assert found == {round(float(first.point[choice]), 3), round(float(last.point[choice]), 3)}


def test_a_mutation_moves_at_least_one_coordinate_and_stays_inside():
    rng, point = np.random.default_rng(1), np.array([0.01, 0.5, 0.99])
    for _ in range(200):
        child = mutated(LINEAR, point, rng, share=0.0, step=0.5)
        assert (child != point).sum() == 1
        assert ((child >= 0) & (child <= 1)).all()


def test_only_scored_candidates_breed():
    values = LINEAR.decode(np.full(3, 0.5))
    pasts = [Past(0, "running", values), Past(1, "failed", values), Past(2, "stopped", values, 0.4)]
    assert [found.past.number for found in members(CUBES, pasts)] == [2]
