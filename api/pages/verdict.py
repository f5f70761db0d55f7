"""A verdict in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

TONES = {"gain": "good", "no gain": "plain", "worse": "bad"}


@dataclass(frozen=True, slots=True)
class Told:
    """A verdict for people: a headline, what it rests on, and how to feel about it (`good`, `plain`, `bad`)."""

    headline: str
    body: str
    tone: str


def tell(verdict: Mapping[str, Any]) -> Told:
    """The verdict of a confirmation in two sentences."""
    kind = str(verdict["verdict"])
    winner, reference = verdict["winner"], verdict["reference"]
    difference = f"{signed(verdict['points'])} points"
    interval = f"95 % interval {signed(verdict['low'])} to {signed(verdict['high'])}"
    alone = winner["trial_id"] == reference["trial_id"]
    if alone:
        headline = f"No gain: no candidate could be compared with {reference['label']}"
    elif kind == "gain":
        headline = f"Gain: {difference} over {reference['label']}"
    elif kind == "worse":
        headline = f"Worse: {difference} against {reference['label']}"
    else:
        headline = f"No gain: {difference} over {reference['label']} is not proven"
    name = f" ({winner['label']})" if winner["label"] else ""
    level = f"one-sided p = {p_value(verdict['p'])}, tested at {verdict['alpha']:g}"
    who = f"Number {winner['number']}{name} and the best parent"
    body = f"{who} answered the same questions, none of which the search had seen: {interval}, {level}."
    why = str(verdict.get("reason") or "")
    return Told(headline, f"{why[:1].upper()}{why[1:]}." if why else "" if alone else body, TONES.get(kind, "plain"))


def beside(verdict: Mapping[str, Any]) -> list[str]:
    """What stands beside the verdict, a sentence each: the claim, floors, the last look, contamination."""
    return [
        *_claim(verdict),
        *_chance(verdict),
        *_floors(verdict),
        *_last_look(verdict.get("final")),
        *_further(verdict.get("also")),
        *_contamination(verdict.get("contamination") or ()),
    ]


def _claim(verdict: Mapping[str, Any]) -> list[str]:
    claimed, winner = verdict.get("claimed"), verdict["winner"]
    if not claimed:
        return []
    spread = f" ± {claimed['sd']:.1f}" if claimed["sd"] else ""
    less = f" less {claimed['optimism']:.1f} for the search" if claimed.get("optimism", 0.0) >= 0.05 else ""
    raw = f", scored {100 * winner['macro_search']:.1f} %" if winner.get("macro_search") is not None else ""
    return [
        f"Before the proof it was believed to be worth {claimed['points']:.1f}{spread} % ({claimed['by']}{less}{raw} "
        "on search items; optimistic)."
    ]


def _chance(verdict: Mapping[str, Any]) -> list[str]:
    """What the best of as many samples gains by chance, beside what it gained."""
    found, winner, reference = verdict.get("chance"), verdict["winner"], verdict["reference"]
    scores = winner.get("macro_search"), reference.get("macro_search")
    if not found or scores[0] is None or scores[1] is None:
        return []
    return [
        f"On search items it is {signed(100 * (scores[0] - scores[1]))} points ahead; the best of "
        f"{found['candidates']} candidates that are worth nothing is expected to be {signed(found['points'])} ahead."
    ]


def _floors(verdict: Mapping[str, Any]) -> list[str]:
    words = {"proven": "kept, proven", "open": "neither proven nor broken", "broken": "broken, proven"}
    told = [
        f"Floor of {floor['floor']:g} points on {floor['task']}: {words[floor['kept']]} "
        f"({signed(floor['points'])} points, at least {signed(floor['low'])})."
        for floor in verdict.get("floors") or ()
    ]
    skipped = len(verdict.get("below_floor") or ())
    if skipped:
        told.append(f"Candidates skipped as they lost more than a floor allows on search items: {skipped}.")
    return told


def _last_look(final: Mapping[str, Any] | None) -> list[str]:
    if not final:
        return []
    if "points" not in final:
        return [f"What was kept back could not be read: {final['message']}."]
    interval = f"95 % interval {signed(final['low'])} to {signed(final['high'])}"
    return [f"On {final['items']} items kept back and read once: {signed(final['points'])} points, {interval}."]


def _further(also: Mapping[str, Any] | None) -> list[str]:
    """Tasks that only the confirmation read."""
    if not also:
        return []
    if "tasks" not in also:
        return [f"The tasks that the search never read could not be read: {also['message']}."]
    return [
        f"{task['task']}, which the search never read: {100 * task['winner']:.1f} % against "
        f"{100 * task['reference']:.1f} % of the best parent on {task['items']} items, {signed(task['points'])} points "
        f"(95 % interval {signed(task['low'])} to {signed(task['high'])})."
        for task in also["tasks"]
    ]


def _contamination(parents: Sequence[Mapping[str, Any]]) -> list[str]:
    if not parents:
        return []
    gaps = ", ".join(f"{p['label']} {signed(p['gap'])} ± {p['stderr']:.1f}" for p in parents)
    return [f"Search minus held-out accuracy of the parents, in points: {gaps}. A gap far beyond its error is suspect."]


def signed(points: float) -> str:
    """Percentage points with a sign."""
    return f"{points:+.1f}".replace("-", "−")


def p_value(p: float) -> str:
    """Three decimals, or a bound."""
    return "less than 0.001" if p < 0.001 else f"{p:.3f}"
