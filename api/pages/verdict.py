"""A verdict in words."""

from __future__ import annotations

from collections.abc import Mapping
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


def signed(points: float) -> str:
    """Percentage points with a sign."""
    return f"{points:+.1f}".replace("-", "−")


def p_value(p: float) -> str:
    """Three decimals, or a bound."""
    return "less than 0.001" if p < 0.001 else f"{p:.3f}"
