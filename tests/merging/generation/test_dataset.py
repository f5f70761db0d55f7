import pytest

from merging.generation.dataset import deciles


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([0.4], [10]),
        ([None, 0.4, None], [0, 10, 0]),
        ([0.1, 0.2], [1, 10]),
        ([0.3, 0.3, 0.3], [10, 10, 10]),
        ([0.1, 0.3, 0.3], [1, 10, 10]),
        ([0.2, 0.2, 0.9], [6, 6, 10]),
        ([k / 10 for k in range(10)], list(range(1, 11))),
        ([None, None], [0, 0]),
    ],
)
def test_equal_scores_have_the_decile_of_the_best_of_them_and_the_best_one_always_has_the_tenth(scores, expected):
    found = deciles(scores)
    assert found == expected
    assert not any(found) or max(found) == 10
