import numpy as np
from studies import space

from search.sobol import BLOCK, cover, sobol_point, spread_point
from search.unit import Cubes


def test_every_sixteenth_of_each_axis_gets_its_share_of_a_sequence():
    points = np.array([sobol_point(5, 0, 3, k) for k in range(2 * BLOCK)])
    for column in points.T:
        counts = np.bincount((column * 16).astype(int), minlength=16)
        assert (counts == 8).all()


def test_seeds_and_cubes_have_sequences_of_their_own():
    assert not np.allclose(sobol_point(5, 0, 3, 1), sobol_point(6, 0, 3, 1))
    assert not np.allclose(sobol_point(5, 0, 3, 1), sobol_point(5, 1, 3, 1))


def test_structures_take_equal_turns_without_gaps_in_their_sequences():
    structures = Cubes(space()).structures
    found = [spread_point(3, structures, number) for number in range(70)]
    cubes = np.array([cube for cube, _ in found])
    assert np.bincount(cubes).min() >= 9
    mine = [point for cube, point in found if cube == 2]
    assert all(np.array_equal(point, sobol_point(3, 2, 3, k)) for k, point in enumerate(mine))


def test_a_cover_of_no_coordinates_is_empty_rows():
    assert cover(0, 8, np.random.default_rng(0)).shape == (8, 0)
