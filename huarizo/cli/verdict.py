"""What a finished search found: parents and winner side by side, and the verdict on held-out items."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from core.statistics import shown_p

Json = Mapping[str, Any]
STYLES = {"gain": "bold green", "no gain": "yellow", "worse": "red"}


@dataclass(frozen=True)
class Row:
    """One model's scores, as shares.

    Attributes:
        scores: by task, on `search` and on `heldout` items; None where it was not scored there.
    """

    name: str
    scores: dict[str, dict[str, float | None]]
    macro_search: float | None
    macro_heldout: float | None
    recipe: Json | None = None


@dataclass(frozen=True)
class Gain:
    """The winner less the best parent on held-out items, in percentage points, with its 95 % interval."""

    points: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Luck:
    """What the winner gained on search items beside what the best of as many worthless candidates gains, in points.

    Attributes:
        ahead: of the best parent.
        candidates: that the winner was chosen from.
        points: expected of the best of them by chance alone.
    """

    ahead: float
    candidates: int
    points: float


@dataclass(frozen=True)
class Report:
    """A search's result.

    Attributes:
        verdict: gain, no gain or worse; None without one.
        winner: the first-ranked candidate, proved better or not; None if none was confirmed.
        luck: what choosing gains by chance; None where candidates were not sampled.
        trials: candidates, parents not counted.
        seconds: wall time from start to end; None while it runs.
        artifact: the winner's checkpoint, or None.
        also: what the tasks say that only the confirmation read, a sentence each.
    """

    verdict: str | None
    parents: tuple[Row, ...]
    winner: Row | None
    gain: Gain | None
    luck: Luck | None
    trials: int
    seconds: float | None
    heldout_reads: int | None
    artifact: Json | None
    also: tuple[str, ...] = ()

    @property
    def tasks(self) -> list[str]:
        """Every task that anything was scored on, in order."""
        rows = [*self.parents, *([self.winner] if self.winner else [])]
        return list(dict.fromkeys(task for row in rows for task in row.scores))


def report_of(job: Json, trials: Sequence[Json], artifacts: Iterable[Json] = ()) -> Report:
    """Gather a job's result from what the API says.

    Args:
        job: the job, with its verdict.
        trials: at least its parents and the winner.
        artifacts: its artifacts.
    """
    verdict: Json = job.get("verdict") or {}
    named: Json = verdict.get("winner") or {}
    winner = next((trial for trial in trials if trial["id"] == named.get("trial_id")), None)
    checkpoints = [a for a in artifacts if winner is not None and a.get("trial_id") == winner["id"]]
    return Report(
        verdict=verdict.get("verdict"),
        parents=tuple(row_of(trial) for trial in trials if trial["origin"] == "parent"),
        winner=None if winner is None else row_of(winner),
        gain=_gain(verdict),
        luck=_luck(verdict),
        also=further(verdict.get("also") or {}),
        trials=sum(trial["origin"] != "parent" for trial in trials),
        seconds=_seconds(job),
        heldout_reads=verdict.get("heldout_reads"),
        artifact=checkpoints[0] if checkpoints else None,
    )


def row_of(trial: Json) -> Row:
    """One trial's scores."""
    sides = {"search": trial.get("scores") or (), "heldout": trial.get("heldout") or ()}
    names = dict.fromkeys(score["task"] for scores in sides.values() for score in scores)
    found = {
        name: {side: next((s["value"] for s in scores if s["task"] == name), None) for side, scores in sides.items()}
        for name in names
    }
    name = trial.get("label") or f"trial {trial['number']}"
    if trial["origin"] != "parent":
        name = f"#{trial['number']} {trial.get('label') or ''}".strip()
    return Row(name, found, trial.get("macro"), trial.get("macro_heldout"), trial.get("recipe"))


def shown(report: Report) -> RenderableType:
    """The table and the sentences below it."""
    said = Text(sentence(report), style=STYLES.get(report.verdict or "", ""))
    beside = [*([luck(report.luck)] if report.luck else []), *report.also]
    return Group(table(report), said, *map(Text, beside))


def table(report: Report) -> Table:
    """Per task: score on search items / score on held-out items, in per cent."""
    grid = Table(title="search / held-out, %", title_justify="left")
    grid.add_column("")
    for task in report.tasks:
        grid.add_column(task, justify="right")
    grid.add_column("mean", justify="right")
    for row in report.parents:
        grid.add_row(row.name, *_cells(row, report.tasks))
    if report.winner is not None:
        grid.add_section()
        title = "winner" if report.verdict == "gain" else "best candidate"
        grid.add_row(f"{title} {report.winner.name}", *_cells(report.winner, report.tasks), style="bold")
    return grid


def sentence(report: Report) -> str:
    """The verdict in words; what the search saw is never called a gain."""
    if report.gain is None or report.verdict is None:
        return "no verdict: nothing was confirmed on held-out items"
    gain = report.gain
    reads = "" if report.heldout_reads is None else f", held-out items read {report.heldout_reads} times"
    return (
        f"{report.verdict}: {gain.points:+.2f} points over the best parent on held-out items "
        f"(95 % interval {gain.low:+.2f} to {gain.high:+.2f}, {shown_p(gain.p)}{reads})"
    )


def luck(found: Luck) -> str:
    """How far ahead the winner was where it was chosen, beside what choosing gains by chance."""
    return (
        f"on search items {found.ahead:+.2f} points over the best parent; the best of {found.candidates} candidates "
        f"that are worth nothing is expected to be {found.points:+.2f} ahead"
    )


def further(also: Json) -> tuple[str, ...]:
    """What the tasks say that only the confirmation read."""
    if also.get("message"):
        return (f"the tasks that the search never read could not be read: {also['message']}",)
    return tuple(
        f"{task['task']}, never read by the search: {task['points']:+.2f} points over the best parent "
        f"(95 % interval {task['low']:+.2f} to {task['high']:+.2f}, {task['items']:,} items)"
        for task in also.get("tasks") or ()
    )


def _cells(row: Row, tasks: Sequence[str]) -> list[str]:
    cells = [row.scores.get(task, {}) for task in tasks]
    pairs = [(cell.get("search"), cell.get("heldout")) for cell in cells] + [(row.macro_search, row.macro_heldout)]
    return [f"{percent(search)} / {percent(heldout)}" for search, heldout in pairs]


def percent(share: float | None) -> str:
    """A share in per cent with one digit, or a dash."""
    return "–" if share is None else f"{100 * share:.1f}"


def _gain(verdict: Json) -> Gain | None:
    found = [verdict.get(name) for name in ("points", "low", "high", "p")]
    if verdict.get("reason") or any(value is None for value in found):  # A reason says why nothing was compared.
        return None
    points, low, high, p = map(float, found)  # type: ignore[arg-type]
    return Gain(points, low, high, p)


def _luck(verdict: Json) -> Luck | None:
    found: Json = verdict.get("chance") or {}
    ours, theirs = (verdict.get(who, {}).get("macro_search") for who in ("winner", "reference"))
    if not found or ours is None or theirs is None:
        return None
    return Luck(100 * (ours - theirs), int(found["candidates"]), float(found["points"]))


def _seconds(job: Json) -> float | None:
    if not job.get("started_at") or not job.get("finished_at"):
        return None
    return (moment(job["finished_at"]) - moment(job["started_at"])).total_seconds()


def moment(text: str) -> datetime:
    """A time as the API writes it."""
    return datetime.fromisoformat(text)
