import numpy as np
import pytest
from studies import merges, space

from search.unit import Cubes

SPACES = [
    space(),
    merges("ties", params={"weight": {"low": 0.01, "high": 1.0, "log": True}, "density": {"low": 0.5, "high": 0.5}}),
    space({"family": "layout", "presets": ["dus", "idus"], "sources": ["a", "b", "c"]}),
]


@pytest.mark.parametrize("compiled", SPACES)
def test_every_point_is_a_candidate_and_comes_back(compiled):
    cubes, rng = Cubes(compiled), np.random.default_rng(1)
    for at, structure in enumerate(cubes.structures):
        for point in rng.random((20, structure.size)):
            values = structure.decode(point)
            compiled.check(values)
            found, back = cubes.locate(values)
            assert found == at
            assert back == pytest.approx(structure.snap(point[None])[0])
            assert structure.decode(back) == pytest.approx(values)


def test_there_is_one_cube_per_method_and_preset():
    structures = Cubes(space()).structures
    assert [structure.fixed.get("merge.method", structure.fixed.get("layout.preset")) for structure in structures] == [
        "linear",
        "slerp",
        "task_arithmetic",
        "ties",
        "dare_ties",
        "dus",
        "idus",
    ]
    assert [structure.size for structure in structures] == [3, 2, 3, 6, 6, 2, 3]


def test_what_is_no_whole_candidate_has_no_place():
    cubes = Cubes(space())
    assert cubes.locate({}) is None
    assert cubes.locate({"family": "merge", "merge.method": "slerp", "merge.slerp.pair": "a|b"}) is None
    assert (
        cubes.locate({"family": "merge", "merge.method": "slerp", "merge.slerp.pair": "a|z", "merge.slerp.t": 0.5})
        is None
    )


def test_whole_numbers_and_choices_own_equal_shares():
    cubes = Cubes(SPACES[2])
    structure = cubes.structures[0]
    drawn = [structure.decode(point) for point in np.random.default_rng(2).random((6000, structure.size))]
    for name in ("layout.source", "layout.dus.m"):
        _, counts = np.unique([str(values[name]) for values in drawn], return_counts=True)
        share = 6000 / len(counts)
        # Four standard deviations of a multinomial count.
        assert abs(counts - share).max() < 4 * (share * (1 - 1 / len(counts))) ** 0.5


def test_any_two_choices_are_equally_far_apart():
    structure = Cubes(SPACES[2]).structures[0]
    column = next(at for at, hole in enumerate(structure.free) if hole.name == "layout.source")
    points = np.full((3, structure.size), 0.5)
    points[:, column] = [1 / 6, 3 / 6, 5 / 6]
    features = structure.features(points)
    apart = np.linalg.norm(features[:, None] - features, axis=2)
    assert apart == pytest.approx(1 - np.eye(3))
    assert list(structure.owners) == sorted([*range(structure.size), column, column])


def test_a_small_space_knows_how_many_candidates_it_has():
    counts = [structure.count for structure in Cubes(SPACES[2]).structures]
    assert counts == [3 * 4, 3 * 4 * 4]
    assert Cubes(space()).structures[0].count == float("inf")
