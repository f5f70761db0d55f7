import numpy as np

from search.seeding import entropy


def test_draws_depend_on_seed_and_number_and_nothing_else():
    assert entropy(7, 3) == entropy(7, 3)
    words = {tuple(entropy(seed, number)) for seed in range(20) for number in range(50)}
    assert len(words) == 1000
    # sha256 of b"trial:7:3" begins e30acf24 17d4b24c; words are little-endian.
    assert entropy(7, 3)[:2] == [0x24CF0AE3, 0x4CB2D417]


def test_the_words_are_a_seed_that_numpy_takes():
    one, same, other = (np.random.RandomState(entropy(2**63 - 1, n)) for n in (10**6, 10**6, 10**6 + 1))
    assert one.random_sample() == same.random_sample() != other.random_sample()
