import pytest
from studies import merges, space

from core.catalog import catalog
from core.jobs import Budget
from search.auto import choose

MANY = merges("task_arithmetic", layer_groups=12)


@pytest.mark.parametrize(
    ("compiled", "trials", "expected"),
    [
        (space(), 40, "gp"),
        (space(), None, "gp"),
        (merges("task_arithmetic"), 40, "gp"),
        (space(), 7, "sobol"),
        (MANY, 1000, "cmaes"),
        (MANY, None, "cmaes"),
        (MANY, 100, "tpe"),
        (merges("task_arithmetic", "ties", layer_groups=12), 1000, "tpe"),
    ],
)
def test_auto_picks_by_space_and_budget(compiled, trials, expected):
    name, reason = choose(compiled, 1, Budget(trials=trials))
    assert catalog().strategy(name).name == expected
    assert reason.startswith(f"{expected}: ")


def test_it_says_why_in_numbers():
    assert "7 structures of up to 6 parameters, 4 candidates at once" in choose(space(), 4, Budget(trials=40))[1]
    assert "36 parameters are more than the 32" in choose(MANY, 1, Budget(trials=1000))[1]
    assert "7 candidates are too few" in choose(space(), 1, Budget(trials=7))[1]


def test_one_candidate_at_a_time_is_not_mentioned():
    assert "at once" not in choose(space(), 1, Budget(trials=40))[1]
