from studies import space

from core.catalog import catalog
from core.jobs import Budget
from search.auto import choose


def test_auto_picks_a_known_strategy_and_says_why():
    name, reason = choose(space(), 4, Budget(trials=40))
    assert catalog().strategy(name).name == "tpe"
    assert "27 parameters" in reason
    assert "26 of them conditional" in reason
    assert "4 candidates at once" in reason


def test_one_candidate_at_a_time_is_not_mentioned():
    assert "at once" not in choose(space(), 1, Budget(trials=40))[1]
