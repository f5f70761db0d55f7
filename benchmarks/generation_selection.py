"""The best of N samples, chosen on search items and judged by law 5 on held-out ones (items 10-12), replayed on scored
samples (`generation_samples`).

A replay takes N of a pool's candidates and draws the items of both sides with replacement. What its population of
held-out items says of a candidate is then known exactly, and a verdict of `gain` for one that is not better there is
false. Under the null every item's answer key is exchanged at random, for all candidates alike: none is better than
another, and every `gain` is false.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.claims import Report
from benchmarks.generation_rivals import interval
from benchmarks.generation_samples import ARMS, FILE, PLACES, POOLS, Pool, complete, drawn_from, recipes, scored
from benchmarks.generation_setting import Setting
from benchmarks.search_null import upper_bound
from core.outcomes import Outcomes
from core.selection import selection
from core.statistics import confirm

Bools = NDArray[np.bool_]

REPLAYS = 2000
#: Samples to choose from, as on the card.
N = 20
TASKS = ("task_0", "task_1", "task_2")
SHARES = (1 / 3, 1 / 3, 1 / 3)
#: Candidates that are scored again, to see that what is kept is what they score.
AGAIN = 2


@dataclass(frozen=True)
class Choice:
    """The end of one replay.

    Attributes:
        verdict: of the service.
        seen, held_out: points of the chosen one over what it lies around, on the replay's items.
        true: points on all held-out items that they were drawn from; 0 under the null.
        itself: whether it is what the candidates lie around, which nothing can promote.
    """

    verdict: str
    seen: float
    held_out: float
    true: float
    itself: bool = False

    @property
    def endangered(self) -> bool:
        """Whether a promotion is possible, and would be false."""
        return not self.itself and self.true <= 0


def replay(pool: Pool, rng: np.random.Generator, *, null: bool) -> Choice:
    """Choose the best of N and the base on search items, and ask the service for its verdict."""
    picked = np.array([0, *(1 + rng.choice(len(pool.search) - 1, N, replace=False))])
    search, held_out = (_drawn(side, rng, null=null) for side in (pool.search, pool.held_out))
    macro = search[:, picked].mean(axis=(0, 2))
    best = int(picked[np.argmax(macro)])
    true = 0.0 if null else _points(pool.held_out[best], pool.held_out[0])
    tasks = [outcomes_of(task) for task in held_out[:, best]], [outcomes_of(task) for task in held_out[:, 0]]
    found = confirm([("best", tasks[0])], ("base", tasks[1]), TASKS, SHARES)
    seen = 100 * float(macro.max() - search[:, 0].mean())
    return Choice(found.verdict, seen, _points(held_out[:, best], held_out[:, 0]), true, best == 0)


def _drawn(right: Bools, rng: np.random.Generator, *, null: bool) -> Bools:
    """(tasks, candidates, items): every task's items drawn with replacement, or their key exchanged under the null."""
    _, tasks, items = right.shape
    if null:
        return np.moveaxis(right ^ rng.integers(0, 2, (tasks, items), dtype=bool), 0, 1)
    return np.stack([right[:, task, rng.integers(items, size=items)] for task in range(tasks)])


def _points(one: Bools, other: Bools) -> float:
    return 100 * float(one.mean() - other.mean())


def outcomes_of(task: Bools) -> Outcomes:
    """Answers to one task, as the service keeps them."""
    numbers = tuple(range(len(task)))
    return Outcomes(numbers, tuple(map(int, task)), (0.0,) * len(numbers))


def best_of(report: Report, setting: Setting) -> None:
    """Claim what the best of N samples gains, seen and truly, and how often a gain is told where there is none."""
    pools = {name: Pool.load(name) for name in complete()}
    for name in POOLS:
        if name not in pools:
            report.skip(f"11: {name}: its true gain on held-out items", None, "its samples have not all been scored")
    for place in PLACES:
        both = [pools[name] for arm in ARMS if (name := f"{place} {arm}") in pools]
        if len(both) == len(ARMS):
            _compared(report, place, *both)
    many = REPLAYS // len(pools)
    real, null = (
        {name: _replays(pool, many, place, null=null) for place, (name, pool) in enumerate(pools.items())}
        for null in (False, True)
    )
    worst = min(choice.seen for found in real.values() for choice in found)
    report.claim("10: least gain of the best on search items, the base among the candidates", worst, "points", 0.0)
    for name, found in real.items():
        _told(report, name, pools[name], found)
    every = [choice for found in real.values() for choice in found]
    false = sum(choice.verdict == "gain" and choice.true <= 0 for choice in every)
    report.claim("11: replays that promote", _share(every), "of 1")
    report.claim("11: false promotions", false / len(every), "of 1")
    report.claim("11: false promotions, upper 95 % bound", upper_bound(false, len(every)), "of 1", 0.05, "lower")
    _conditional(report, "11", "the chosen one is no better than what it lies around", every)
    nothing = [choice for found in null.values() for choice in found]
    hits = sum(choice.verdict == "gain" for choice in nothing)
    report.claim("12: null, gain of the luckiest on search items", _mean(c.seen for c in nothing), "points")
    report.claim("12: null, its gain on held-out items", _mean(c.held_out for c in nothing), "points")
    report.claim("12: null, promotions", hits / len(nothing), "of 1")
    report.claim("12: null, promotions, upper 95 % bound", upper_bound(hits, len(nothing)), "of 1", 0.05, "lower")
    _conditional(report, "12", "something else than what samples lie around is chosen", nothing)
    report.note(f"11 and 12: {len(every)} replays each over {len(pools)} pools, {false} and {hits} false promotions; "
                "nominal level 0.025, one-sided")  # fmt: skip
    again(report, setting)


def _conditional(report: Report, item: str, where: str, choices: Sequence[Choice]) -> None:
    """False promotions among the replays alone in which one can happen."""
    found = [choice for choice in choices if choice.endangered]
    false = sum(choice.verdict == "gain" for choice in found)
    report.claim(f"{item}: replays in which {where}", len(found) / len(choices), "of 1")
    report.claim(f"{item}: false promotions among these", false / max(1, len(found)), "of 1")
    name = f"{item}: false promotions among these, upper 95 % bound"
    report.claim(name, upper_bound(false, len(found)), "of 1", 0.05, "lower")


def _replays(pool: Pool, many: int, place: int, *, null: bool) -> list[Choice]:
    # A stream of their own for every pool: the bound counts all replays as independent.
    rng = np.random.default_rng([2026, null, place])
    return [replay(pool, rng, null=null) for _ in range(many)]


def _compared(report: Report, place: str, samples: Pool, noise: Pool) -> None:
    """Accuracy of samples beside noise with the same seeds and radii (item 8, on questions)."""
    right = [np.concatenate([pool.search, pool.held_out], axis=2) for pool in (samples, noise)]
    one, other = ([_points(candidate, pool[0]) for candidate in pool[1:]] for pool in right)
    mean, low, high = interval(np.subtract(one, other))
    report.claim(f"8: {place}: accuracy over what is sampled around, sample", float(np.mean(one)), "points")
    report.claim(f"8: {place}: the same, matched noise", float(np.mean(other)), "points")
    report.claim(f"8: {place}: accuracy, sample less matched noise", mean, "points")
    report.claim(f"8: {place}: the same, lower 95 % bound", low, "points")
    report.claim(f"8: {place}: the same, upper 95 % bound", high, "points")


def _told(report: Report, name: str, pool: Pool, found: Sequence[Choice]) -> None:
    differences = [[list(map(int, task)) for task in each.astype(int) - pool.search[0]] for each in pool.search[1:]]
    expected = selection(differences, SHARES, N)
    discordant = float((pool.search[1:] != pool.search[0]).mean())
    report.claim(f"11: {name}: gain of the best of {N} on search items", _mean(c.seen for c in found), "points")
    report.claim(f"11: {name}: what choosing alone is estimated to be worth", expected.points, "points")
    report.claim(f"11: {name}: its true gain on held-out items", _mean(c.true for c in found), "points")
    report.claim(f"11: {name}: replays that promote", _share(found), "of 1")
    report.claim(f"11: {name}: items that a sample answers otherwise", discordant, "of 1")


def again(report: Report, setting: Setting) -> None:
    """Claim that what is kept is what candidates score."""
    wrong = total = others = 0
    # A quick run does not train a generator of several parents.
    for name in complete()[: 1 if report.quick else None : len(ARMS)]:
        pool, generator = Pool.load(name), drawn_from(setting, name)
        others += pool.generator != generator
        wanted = recipes(setting, name, generator)
        for k in np.linspace(0, len(wanted) - 1, AGAIN, dtype=int):
            found = scored(setting, wanted[k])
            for side, kept in (("search", pool.search[k]), ("heldout", pool.held_out[k])):
                wrong, total = wrong + int((found[side] != kept).sum()), total + kept.size
    report.claim("11: pools of other generators than today's", others, "", 0, "lower")
    report.claim("11: kept answers that differ when scored again", wrong / total, "of 1", 0.002, "lower")
    report.note(f"11: read from benchmarks/results/{FILE.name}, made by `python -m benchmarks.generation_samples`")


def _share(found: Sequence[Choice]) -> float:
    return _mean(float(choice.verdict == "gain") for choice in found)


def _mean(values: object) -> float:
    return float(np.mean(list(values)))  # type: ignore[call-overload]
