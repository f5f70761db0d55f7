"""The tables of docs/weight-generation.md, from the committed figures.

    python -m benchmarks.generation_page

writes each between its marks in the page; a test compares them. Prose is written by hand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from benchmarks.claims import ROOT
from benchmarks.generation_cost import JOBS
from benchmarks.generation_mixed import BEST, ELITE, FAMILIES, OWN, SEEDS
from benchmarks.generation_real import RADII
from benchmarks.generation_rivals import FED, RIVALS, SIZES
from benchmarks.generation_samples import PLACES, POOLS

PAGE = ROOT / "docs" / "weight-generation.md"
RESULTS = ROOT / "benchmarks" / "results" / "generation.json"
#: Where the table of a name stands.
MARKS = "<!-- {name}: begin -->\n{table}<!-- {name}: end -->"

Rows = Iterator[Sequence[str]]


class Figures:
    """Claims by name.

    Args:
        results: of `python -m benchmarks.generation`.
    """

    def __init__(self, results: dict[str, Any]) -> None:
        self.parts: dict[str, Any] = results["parts"]
        self._claims = {claim["name"]: claim for claim in results["claims"]}

    def __contains__(self, name: str) -> bool:
        return name in self._claims

    def value(self, name: str) -> float:
        """What was measured."""
        return float(self._claims[name]["value"])

    def told(self, name: str) -> str:
        """The value in five digits at most, without a sign where it is above 0."""
        return _number(self.value(name))

    def goal(self, name: str) -> str:
        """The goal with its direction; nothing where there is none."""
        claim = self._claims[name]
        if claim["goal"] is None:
            return "told"
        missed = "" if self.holds(name) else ", missed"
        return f"{'≥' if claim['better'] == 'higher' else '≤'} {claim['goal']:g}{missed}"

    def holds(self, name: str) -> bool:
        """Whether the goal is reached."""
        claim = self._claims[name]
        goal, value = claim["goal"], claim["value"]
        return bool(goal is None or (value >= goal if claim["better"] == "higher" else value <= goal))


def must_hold(figures: Figures) -> Rows:
    """All figures of the acceptance items that have a goal, and those that only need be told beside them."""
    yield "#", "", "measured", "goal"
    for item in ("1", "2", "3", "4", "5", "6", "7", "9b", "10", "11", "12", "13", "14", "15", "card"):
        for name in figures._claims:
            number, _, about = name.partition(": ")
            if number == item and not (item == "11" and about.startswith(POOLS)):
                unit = figures._claims[name]["unit"]
                yield number, about, f"{figures.told(name)} {_unit(unit)}".rstrip(), figures.goal(name)


def noise(figures: Figures) -> Rows:
    """Item 8, perplexity of one-shot samples."""
    yield "one-shot", "ln perplexity over the base's: sample", "matched noise", "difference, 95 %"
    for size in SIZES:
        mine, other = f"8: {size}: ln perplexity over the base's, sample", f"8: {size}: the same, matched noise"
        low, high = (f"8: {size}: the same, {side} 95 % bound" for side in ("lower", "upper"))
        yield size, _signed(figures, mine), _signed(figures, other), _span(figures, low, high)


def questions(figures: Figures) -> Rows:
    """Item 8, accuracy."""
    yield "24 seeds at rho 0.01, 0.03 and 0.1, 4,500 items", "points over that: sample", "matched noise", "difference"
    names = {"one-shot": "one-shot, around the base", "parents": "of four parents, row norms, around their merge"}
    for place in PLACES:
        mine = f"8: {place}: accuracy over what is sampled around, sample"
        low, high = (f"8: {place}: the same, {side} 95 % bound" for side in ("lower", "upper"))
        other = f"8: {place}: the same, matched noise"
        yield names[place], _signed(figures, mine, 2), _signed(figures, other, 2), _span(figures, low, high, 2)


def real(figures: Figures) -> Rows:
    """The same of a small real Llama."""
    yield "", "ln perplexity over the base's: sample", "sample less matched noise, 95 %"
    for rho in RADII:
        mine = f"real: rho {rho:g}: ln perplexity over the base's, sample"
        low, high = (f"real: rho {rho:g}: the same, {side} 95 % bound" for side in ("lower", "upper"))
        yield f"rho {rho:g}", _signed(figures, mine), _span(figures, low, high)


def rivals(figures: Figures) -> Rows:
    """Item 9: every rival, as it comes and at one distance."""
    labels = [
        (what, label)
        for what, radius in FED.values()
        for label in (f"9: {what}, as they come", f"9: {what}, at {radius:g}")
    ]
    heads = [f"{what}, {label.partition(', ')[2]}: distance, mean, best" for what, label in labels]
    yield "held-out loss, nats", *heads
    for name in RIVALS:
        cells = []
        for _, label in labels:
            distance = figures.value(f"{label}: {name}: distance from the merge, mean over tensors")
            mean = figures.value(f"{label}: {name}: held-out loss, mean")
            best = figures.value(f"{label}: {name}: held-out loss of the best on practice")
            cells.append(f"{distance:.2g}, {mean:.4f}, {best:.4f}")
        yield name, *cells
    spans = [
        _span(figures, *(f"{label}: sample less matched noise, {side} 95 % bound" for side in ("lower", "upper")))
        for _, label in labels
    ]
    yield "anchored samples less matched noise, 95 %", *spans
    ends = [f"{label}: best of the anchored samples on practice, less the best of the rivals'" for _, label in labels]
    yield "best anchored sample less the best rival", *(_signed(figures, name) for name in ends)


def best_of(figures: Figures) -> Rows:
    """Item 11, pool by pool."""
    heads = ("gain seen on search items", "chance alone, estimated", "true gain", "replays promoted")
    yield "pool", *heads, "items answered otherwise"
    for pool in POOLS:
        told = [
            _signed(figures, f"11: {pool}: gain of the best of 20 on search items", 2),
            _signed(figures, f"11: {pool}: what choosing alone is estimated to be worth", 2),
            _signed(figures, f"11: {pool}: its true gain on held-out items", 2),
            f"{100 * figures.value(f'11: {pool}: replays that promote'):.1f} %",
            f"{100 * figures.value(f'11: {pool}: items that a sample answers otherwise'):.1f} %",
        ]
        yield pool.replace(" ", ", "), *told


def mixed(figures: Figures) -> Rows:
    """Searches with samples among merges and layouts, study by study."""
    yield (
        "generator of", "nursery, seed", "samples among candidates", "finalists: diffusion, noise",
        "led by a sample", "held out: with, without", "best diffusion finalist less what it lies around",
    )  # fmt: skip
    for form in (ELITE, OWN):
        for label in _studies(figures):

            def figure(name: str, label: str = f"{label}, {form}") -> float:
                return figures.value(f"{label}: {name}")

            best = f"{label}, {form}: {BEST}"
            yield (
                form.replace("a generator of its own", "the search itself").replace("elite of a search", "an elite"),
                label.removeprefix("mixed, nursery ").replace(" seed ", " "),
                f"{100 * figure('candidates that are samples'):.0f} %",
                f"{figure('finalists sampled by diffusion'):.0f}, {figure('finalists that are matched noise'):.0f}",
                "yes" if figure("led by a sample") else "no",
                f"{figure('held-out accuracy with samples'):.2f} %, "
                f"{figure('held-out accuracy without, at equal items'):.2f} %",
                _signed(figures, best, 2) if best in figures else "—",
            )


def mixed_sums(figures: Figures) -> Rows:
    """The same over all studies."""
    yield (
        "generator of",
        "studies",
        "finalists: diffusion, noise, all",
        "led by a sample",
        "held out, with less without",
    )
    for form in (ELITE, OWN):
        labels = [f"{label}, {form}" for label in _studies(figures)]

        def summed(name: str, labels: Sequence[str] = labels) -> float:
            return sum(figures.value(f"{label}: {name}") for label in labels)

        gains = [figures.value(f"{label}: held-out, with samples less without") for label in labels]
        drawn, noisy = summed("finalists sampled by diffusion"), summed("finalists that are matched noise")
        yield (
            form,
            str(len(labels)),
            f"{drawn:.0f}, {noisy:.0f}, {3 * len(labels)}",
            f"{summed('led by a sample'):.0f}",
            f"mean {_sign(sum(gains) / len(gains), 2)} points, {_sign(min(gains), 2)} to {_sign(max(gains), 2)}",
        )


def cost(figures: Figures) -> Rows:
    """Cost at 8 B, on paper."""
    yield (
        "", "parameters", "numbers generated", "data and codes", "networks", "peak memory: training, a sample",
        "training", "one sample",
    )  # fmt: skip
    for name in JOBS:

        def figure(about: str, label: str = f"cost at 8 B: {name}") -> float:
            return figures.value(f"{label}: {about}")

        peaks = (figure("peak memory of training"), figure("peak memory of a sample"))
        yield (
            name,
            f"{figure('parameters'):,.0f}",
            f"{figure('numbers that describe them'):,.0f}",
            _bytes(figure("data and codes")),
            _bytes(figure("networks in training")),
            ", ".join(map(_bytes, peaks)),
            f"{figure('training'):,.3g} TFLOP, {figure('training, estimated'):.3g} s",
            f"{figure('one sample, 25 steps'):.3g} TFLOP, {figure('one sample, estimated'):.2g} s",
        )


def parts(figures: Figures) -> Rows:
    """Where each part is from."""
    yield "part", "day", "commit", "machine", "seconds"
    for name, about in figures.parts.items():
        machine = about["machine"]
        where = f"{machine['processor']}, {machine['cores']} cores, torch {machine['torch']}"
        yield name, about["date"], f"`{about['commit']}`", where, f"{about['seconds']:.0f}"


TABLES: dict[str, Callable[[Figures], Rows]] = {
    "must hold": must_hold,
    "noise": noise,
    "questions": questions,
    "real": real,
    "rivals": rivals,
    "best of": best_of,
    "mixed": mixed,
    "mixed sums": mixed_sums,
    "cost": cost,
    "parts": parts,
}


def written(page: str, results: dict[str, Any]) -> str:
    """The page with all tables as the results have them.

    Raises:
        ValueError: a table has no marks in the page.
    """
    figures = Figures(results)
    for name, rows in TABLES.items():
        pattern = re.escape(MARKS).replace(r"\{name\}", name).replace(r"\{table\}", "(?s:.*?)")
        table = MARKS.format(name=name, table=_table(list(rows(figures))))
        page, found = re.subn(pattern, lambda _, table=table: table, page)
        if found != 1:
            raise ValueError(f"the table {name!r} needs one place in the page, but has {found!r}: mark it")
    return page


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *rest = rows
    lines = [head, ["---"] * len(head), *rest]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _studies(figures: Figures) -> list[str]:
    every = [f"mixed, nursery {family}, seed {seed}" for family in FAMILIES for seed in SEEDS]
    return [label for label in every if f"{label}, {ELITE}: led by a sample" in figures]


def _number(value: float) -> str:
    return f"{value:.5g}".replace("-", "−")


def _unit(unit: str) -> str:
    return "" if unit == "of 1" else unit


def _sign(value: float, digits: int) -> str:
    # What rounds to nothing has no sign.
    shown = round(value, digits) + 0.0
    return f"{shown:+.{digits}f}".replace("-", "−")


def _signed(figures: Figures, name: str, digits: int = 4) -> str:
    return _sign(figures.value(name), digits)


def _span(figures: Figures, low: str, high: str, digits: int = 4) -> str:
    return f"{_signed(figures, low, digits)} to {_signed(figures, high, digits)}"


def _bytes(gigabytes: float) -> str:
    return f"{1000 * gigabytes:.3g} MB" if gigabytes < 1 else f"{gigabytes:.3g} GB"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text("utf-8"), json.loads(RESULTS.read_text("utf-8"))), "utf-8")
