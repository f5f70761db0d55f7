"""What the default strategy needs in a simulated world, against mergekit-evolve and against all that is shipped.

Everything is counted: parents, reference, stopped candidates, builds, and the confirmation of three finalists and the
best parent on held-out items; beside it stands what it is with one finalist, which is all that a verdict needs.
A claim stands on seeds that nothing was tuned on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from benchmarks.claims import Report
from benchmarks.search_driver import Advice
from benchmarks.search_runs import BASELINE, REPORTED, Case, search_all
from benchmarks.search_world import FULL, HELD_OUT, TASKS
from core.catalog import catalog

Floats = NDArray[np.float64]

DIMENSIONS = (2, 4, 6, 10)
#: Never looked at while anything was tuned; seeds 0-11 were for that.
SEEDS = tuple(range(100, 124))
#: Worlds for the comparison with published curves alone.
CALIBRATION = tuple(range(1000, 1036))
#: By items a build costs: times fewer items, and its lower bound.
GOALS = {0: (4.0, 2.5), 1000: (3.0, 2.0), 3000: (2.5, 1.7)}
#: Finalists and the best parent answer all held-out items; finalists are built again.
FINALISTS = 3
#: Full evaluations of the baseline whose regret is the target.
TARGET = 100.0
COMPARED = (10.0, 20.0, 50.0, 100.0)
#: Full evaluations that the default is given, by items a build costs: enough for half of its goal.
UNTIL = {0: 40.0, 1000: 45.0, 3000: 50.0}
#: Where the strategies that are shipped are compared, and up to how many full evaluations; 0 is the mixed world.
RIVALRY = {4: 100.0, 10: 50.0, 0: 50.0}
#: Where four workers are busy at once.
PARALLEL = (4, 10)
QUICK = (4, 10)
RESAMPLES = 4000
#: Points by which a search that has reached its target may be worse again later on: a hundredth of a point more or less
#: is luck where the target itself lies below a tenth.
ALLOWED = 0.1
#: One has several objectives; the other is what `auto` takes in all of these worlds.
LEFT_OUT = {"nsga2", "gp"}

#: Regrets in points after 20, 50 and 100 full evaluations in the world that ours was modelled on.
PUBLISHED = {
    (4, BASELINE): (0.90, 0.46, 0.15),
    (10, BASELINE): (2.01, 1.10, 0.74),
    (4, "full random"): (1.97, 1.00, 0.78),
    (10, "full random"): (3.93, 3.43, 2.57),
}


class Curve(NamedTuple):
    """Regret over what was spent.

    Attributes:
        spent: (points,) full evaluations.
        regret: (seeds, points).
    """

    spent: Floats
    regret: Floats

    def at(self, spent: float) -> Floats:
        """(seeds,) regret after so many full evaluations."""
        return self.regret[:, int(np.flatnonzero(np.isclose(self.spent, spent))[0])]


def simulation(report: Report) -> None:
    """All claims of this part."""
    cases = _cases(quick=report.quick)
    found = search_all([case for group in cases.values() for case in group])
    curves = {key: _curve([found[case] for case in group]) for key, group in cases.items()}
    _calibration(report, curves)
    for world in DIMENSIONS:
        for build, goals in GOALS.items():
            _multiplier(report, curves, (world, "auto", build, 1), goals)
    for world in PARALLEL:
        _multiplier(report, curves, (world, "auto", 0, 4), None)
    for world in (*DIMENSIONS, 0):
        _honesty(report, world, [found[case] for case in cases.get((world, "auto", 0, 1), ())])
    _comparison(report, curves)
    _mixed(report, curves)


#: World, strategy, build cost, workers.
Key = tuple[int, str, int, int]


def rivals() -> list[str]:
    """All strategies that are shipped and can be compared by one objective, but for what `auto` takes here."""
    return [info.name for info in catalog().strategies if info.name not in LEFT_OUT]


def _cases(*, quick: bool) -> dict[Key, list[Case]]:
    """Searches by what they have in common."""
    found: dict[Key, list[Case]] = {}

    def add(world: int, strategy: str, build: int = 0, parallel: int = 1, until: float = 100.0) -> None:
        key = world, strategy, build, parallel
        longest = max(until, found[key][0].until) if key in found else until
        found[key] = [Case(world, strategy, seed, build, parallel, longest) for seed in SEEDS]

    for world in QUICK if quick else DIMENSIONS:
        add(world, BASELINE)
        for build, until in UNTIL.items():
            if not (quick and build):
                add(world, "auto", build, until=50.0 if quick else until)
    if not quick:
        for world in PARALLEL:
            add(world, "auto", parallel=4, until=UNTIL[0])
        for world, until in RIVALRY.items():
            for strategy in ("auto", *rivals()):
                add(world, strategy, until=until)
    for world, strategy in PUBLISHED:
        found[world, f"{strategy}, calibration", 0, 1] = [Case(world, strategy, seed) for seed in CALIBRATION]
    return found


def _curve(runs: Sequence[Sequence[Advice]]) -> Curve:
    spent = np.array([advice.spent for advice in runs[0]])
    return Curve(spent, np.array([[advice.regret for advice in run] for run in runs]))


# -- times fewer items -------------------------------------------------------------------------------------------------


def _multiplier(report: Report, curves: Mapping[Key, Curve], key: Key, goals: tuple[float, float] | None) -> None:
    """Items to the baseline's regret at its 100 full evaluations: the baseline's over ours, confirmation included."""
    world, strategy, build, parallel = key
    workers = f", {parallel} workers" if parallel > 1 else ""
    name = f"{strategy}: times fewer items than {BASELINE}, d = {world}, build {build}{workers}"
    point_goal, low_goal = goals or (None, None)
    if key not in curves:
        for part, goal in (("", point_goal), (": lower 95 % bound", low_goal)):
            report.skip(name + part, goal, "does not fit in five minutes")
        return
    ours, target = curves[key], curves[world, BASELINE, 0, 1].at(TARGET)
    whole = FULL + build
    picks = np.random.default_rng(0).integers(len(target), size=(RESAMPLES, len(target)))
    for finalists, part, goal, least in (
        (FINALISTS, "", point_goal, low_goal),
        (1, ": of the finalists the winner alone", None, None),
        (0, ": without confirmation", None, None),
    ):
        point, lower = times_fewer(ours, target, picks, whole=whole, paid=_confirmed(finalists, build))
        report.claim(name + part, point, "times", goal)
        report.claim(f"{name}{part}{',' if part else ':'} lower 95 % bound", lower, "times", least)


def _confirmed(finalists: int, build: int) -> int:
    """Items of a confirmation, and its builds in items; none without a finalist."""
    return (finalists + 1) * TASKS * HELD_OUT + finalists * build if finalists else 0


def times_fewer(ours: Curve, target: Floats, picks: NDArray[np.int64], *, whole: int, paid: int) -> tuple[float, float]:
    """The ratio of items, and the 2.5 % quantile of its bootstrap over seeds.

    Args:
        ours: the curve that is to reach the target.
        target: (seeds,) regrets of the baseline after `TARGET` full evaluations.
        picks: (resamples, seeds) which seeds each resample consists of.
        whole: cost of a full evaluation.
        paid: what ours costs besides the search.
    """
    own = reached(ours.spent, ours.regret.mean(0)[None], target.mean()[None])
    resampled = reached(ours.spent, ours.regret[picks].mean(1), target[picks].mean(1))
    ratios = TARGET * whole / (resampled * whole + paid)
    return float(TARGET * whole / (own[0] * whole + paid)), float(np.quantile(ratios, 0.025))


def reached(spent: Floats, regret: Floats, target: Floats) -> Floats:
    """Where mean curves come down to their targets, on a logarithmic scale between checkpoints, to stay there.

    Args:
        spent: (points,) ascending.
        regret: (curves, points).
        target: (curves,).

    Returns:
        (curves,) in the units of `spent`; infinite where a curve does not, or is more than `ALLOWED` above its target
        at any later checkpoint.
    """
    found = np.full(len(target), np.inf)
    for row, (curve, wanted) in enumerate(zip(regret, target, strict=True)):
        settled = int(np.flatnonzero(curve > wanted + ALLOWED).max(initial=-1)) + 1
        down = settled + np.flatnonzero(curve[settled:] <= wanted)
        if len(down):
            found[row] = _crossing(spent, curve, wanted, int(down[0]))
    return found


def _crossing(spent: Floats, curve: Floats, wanted: float, at: int) -> float:
    if at == 0 or curve[at - 1] <= wanted:
        return float(spent[at])
    share = (curve[at - 1] - wanted) / (curve[at - 1] - curve[at])
    return float(spent[at - 1] * (spent[at] / spent[at - 1]) ** share)


# -- the others --------------------------------------------------------------------------------------------------------


def _calibration(report: Report, curves: Mapping[Key, Curve]) -> None:
    """The world gives the published curves of two strategies."""
    for (world, strategy), published in PUBLISHED.items():
        curve = curves[world, f"{strategy}, calibration", 0, 1]
        ours = [float(curve.at(spent).mean()) for spent in (20.0, 50.0, 100.0)]
        off = max(abs(mine / theirs - 1) for mine, theirs in zip(ours, published, strict=True))
        report.claim(f"world: {strategy}'s regrets off the published, d = {world}", off, "share", 0.3, "lower")
        shown = ", ".join(f"{mine:.2f} ({theirs:.2f})" for mine, theirs in zip(ours, published, strict=True))
        report.note(f"{strategy}, d = {world}: regrets after 20, 50, 100 (published): {shown}")


def _honesty(report: Report, world: int, runs: Sequence[Sequence[Advice]]) -> None:
    """Whether the gain that the search believes in is the true one, on average."""
    place = f"d = {world}" if world else "mixed"
    for spent in (20.0, 40.0):
        name = f"auto: claimed gain off the true one after {spent:g}, {place}"
        if not runs:
            report.skip(name, 0.3, "does not fit in five minutes")
            continue
        advice = [[a for a in run if a.spent <= spent + 1e-9][-1] for run in runs]
        bias = np.array([a.claimed - a.true for a in advice])
        report.claim(name, abs(float(bias.mean())), "points", 0.3, "lower")
        others = [np.mean([getattr(a, kind) - a.true for a in advice]) for kind in ("seen", "held_out")]
        error = bias.std(ddof=1) / len(bias) ** 0.5
        report.note(
            f"{name}: {bias.mean():+.2f} ± {error:.2f}; by 0/1 accuracy on search items {others[0]:+.2f}, on held-out "
            f"items {others[1]:+.2f}"
        )


def _comparison(report: Report, curves: Mapping[Key, Curve]) -> None:
    """Whether any strategy that is shipped does better than the default anywhere."""
    name = "auto: comparisons with shipped strategies that are lost (Holm, 5 %)"
    if report.quick:
        report.skip(name, 0, "does not fit in five minutes")
        return
    losses = []
    for world in RIVALRY:
        _table(report, world, curves)
        own = curves[world, "auto", 0, 1]
        for rival in rivals():
            other = curves[world, rival, 0, 1]
            within = [spent for spent in COMPARED if spent <= RIVALRY[world]]
            losses += [(own.at(spent) - other.at(spent), (world, rival, spent)) for spent in within]
    ps = [_worse(difference) for difference, _ in losses]
    lost = [losses[k] for k in _holm(ps)]
    report.claim(name, len(lost), "comparisons", 0, "lower")
    for difference, (world, rival, spent) in lost:
        report.note(f"lost to {rival}, d = {world}, after {spent:g}: {difference.mean():+.2f} points of regret")


def _worse(difference: Floats) -> float:
    """One-sided p of the differences in regret not being above 0; equal searches are no evidence."""
    if not difference.any():
        return 1.0
    return float(stats.ttest_1samp(difference, 0.0, alternative="greater").pvalue)


def _holm(ps: Sequence[float], alpha: float = 0.05) -> list[int]:
    """Which hypotheses Holm's procedure rejects."""
    rejected: list[int] = []
    for rank, k in enumerate(sorted(range(len(ps)), key=lambda k: ps[k])):
        if ps[k] > alpha / (len(ps) - rank):
            break
        rejected.append(k)
    return rejected


def _table(report: Report, world: int, curves: Mapping[Key, Curve]) -> None:
    place = f"d = {world}" if world else "mixed"
    for strategy in ("auto", *rivals()):
        curve = curves.get((world, strategy, 0, 1))
        if curve is not None:
            within = [spent for spent in REPORTED if spent <= RIVALRY[world]]
            shown = " / ".join(f"{curve.at(spent).mean():.2f}" for spent in within)
            report.note(f"{place}, {strategy}: regrets after {' / '.join(f'{at:g}' for at in within)}: {shown}")


def _mixed(report: Report, curves: Mapping[Key, Curve]) -> None:
    """Methods with parameters of their own."""
    for strategy in ("auto", "tpe", "random"):
        for spent in (20.0, 50.0):
            name = f"mixed world: regret of {strategy} after {spent:g}"
            if (0, strategy, 0, 1) in curves:
                report.claim(name, float(curves[0, strategy, 0, 1].at(spent).mean()), "points", better="lower")
            else:
                report.skip(name, None, "does not fit in five minutes")
