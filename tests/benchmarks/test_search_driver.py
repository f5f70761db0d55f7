"""The simulated search counts every item, and runs again as it ran before."""

import pytest

from benchmarks.search_driver import Search, Setting
from benchmarks.search_world import FULL, numeric
from core.jobs import Racing


def test_every_item_is_counted():
    search = Search(numeric(0, 2), Setting("random", build=40), seed=0)
    search.run([6.0])
    scored = sum(3 * candidate.items for candidate in search.ended[1:])
    under_way = sum(3 * search.rungs[candidate.rung] for _, _, candidate in search._running)
    assert search.ledger.reference == FULL
    # One of the two is told from the other on the first rung.
    assert search.ledger.parents == FULL + 150
    assert [parent.items for parent in search.parents] == [50, 1000]
    assert search.ledger.candidates == scored + under_way
    assert search.ledger.builds == len(search.ended) + len(search._running)
    assert search.ledger.cost == search.ledger.items + 40 * search.ledger.builds


def test_advice_is_given_before_anything_beyond_the_checkpoint_is_begun():
    whole = FULL + 500
    search = Search(numeric(1, 2), Setting("random", build=500), seed=1)
    costs, give = [], search.advise

    def watched(spent):
        costs.append((spent, search.ledger.cost))
        return give(spent)

    search.advise = watched
    search.run([4.0, 5.0, 7.0])
    assert [spent for spent, _ in costs] == [4.0, 5.0, 7.0]
    assert all(spent * whole - whole < cost <= spent * whole for spent, cost in costs)


def test_a_search_is_reproducible_from_its_seed():
    def once(seed):
        return Search(numeric(seed, 2), Setting("gp", parallel=2), seed).run([5.0, 7.0])

    assert once(2) == once(2)
    assert once(2) != once(3)


def test_a_bare_search_pays_for_nothing_but_its_candidates():
    search = Search(numeric(0, 2), Setting("random", bare=True, ahead=0), seed=0)
    (advice,) = search.run([10.0])
    assert search.ledger.parents == search.ledger.reference == 0
    assert len(search.ended) == 10
    best = max(search.ended, key=lambda candidate: candidate.last_heard.score)
    assert advice.regret == search.world.regret(best.values)
    assert advice.claimed == pytest.approx(advice.seen) == pytest.approx(100 * best.last_heard.score)


def test_the_first_rung_grows_with_the_cost_of_a_build():
    world = numeric(0, 2)
    assert Search(world, Setting("random"), seed=0).rungs == (50, 200, 1000)
    assert Search(world, Setting("random", build=1000), seed=0).rungs[0] * 3 >= 1000 / 3
    assert Search(world, Setting("mergekit-evolve"), seed=0).rungs == (1000,)


def test_workers_are_busy_at_the_same_time():
    search = Search(numeric(0, 2), Setting("random", parallel=3, racing=Racing(rungs=(50,))), seed=0)
    search.run([6.0])
    assert len(search._running) == 3
    assert len(search._waiting) == 3
