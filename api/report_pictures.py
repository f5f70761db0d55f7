"""The pictures of a report, from a job's rows and its explanation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from api import svg
from api.pages import pictures
from core.course import Peak
from core.jobs import SearchJob
from core.records import TrialSummary

#: Slices shown: those of the most important parameters.
SLICES = 12
#: Rows of one picture.
ROWS = 24


def proof(verdict: Mapping[str, Any]) -> Markup:
    """The finalists' differences to the best parent on held-out items; those that were not reached are faint."""
    rows = [
        svg.Span(f"number {row['number']}", row["points"], row["low"], row["high"], bool(row["tested"]))
        for row in verdict.get("tested", [])
    ]
    if not rows and verdict["winner"]["trial_id"] != verdict["reference"]["trial_id"]:
        rows = [svg.Span(f"number {verdict['winner']['number']}", verdict["points"], verdict["low"], verdict["high"])]
    final = verdict.get("final") or {}
    if "points" in final:
        rows.append(svg.Span("kept back, read once", final["points"], final["low"], final["high"]))
    return svg.intervals(rows, unit="points to the best parent")


def curve(peaks: Sequence[Peak], parents: Sequence[TrialSummary], items: int) -> Markup:
    """The best score so far against items scored."""
    points = [(float(peak.items), peak.macro) for peak in peaks]
    return svg.curve(points, pictures.levels(parents), end=float(items), unit="items scored", width=940, height=280)


def history(job: SearchJob, every: Sequence[TrialSummary]) -> Markup:
    """Every candidate in the order of proposals."""
    dots, levels = pictures.dots(job, every, pictures.methods_of(job)), pictures.levels(every)
    return svg.history(dots, levels, width=940, height=300) if dots else Markup("")


def importance(explained: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Bars for every set of parameters that exist together, or why there are none."""
    found = []
    for group in _of(explained, "importance", "groups"):
        rows = [(entry["name"], entry["importance"]) for entry in group["parameters"][:ROWS]]
        said = f"Importance of {len(rows)} parameters."
        found.append(
            {
                "title": _condition(group["when"]),
                "trials": group["trials"],
                "reason": group.get("reason"),
                "hidden": len(group["parameters"]) - len(rows),
                "picture": svg.bars(rows, line=group["noise"], said=said),
            }
        )
    return found


def sensitivity(explained: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Intervals per source and per layer group for every structure."""
    found = []
    for structure in _of(explained, "sensitivity", "structures"):
        sources = [_span(f"source {entry['source']}", entry) for entry in structure["sources"]]
        groups = [_span(f"layer group {entry['layer_group']}", entry) for entry in structure["layer_groups"]]
        ranked = sorted(structure["parameters"], key=lambda entry: -abs(entry["points"]))[:ROWS]
        single = [_span(entry["name"], entry) for entry in ranked]
        rows = [*sources, *groups] or single
        found.append(
            {
                "title": _condition(structure["when"]),
                "trials": structure["trials"],
                "at": structure["at"],
                "picture": svg.intervals(rows, unit="points per whole search interval", label=300),
                "single": svg.intervals(single, unit="points per whole search interval", label=300) if sources else "",
            }
        )
    return found


def slices(explained: Mapping[str, Any] | None) -> list[Markup]:
    """Values against scores, for the most important parameters."""
    weights = {
        entry["name"]: entry["importance"] * group["trials"]
        for group in _of(explained, "importance", "groups")
        for entry in group["parameters"]
    }
    axes = [axis for axis in (explained or {}).get("slices", []) if axis["points"]]
    ranked = sorted(axes, key=lambda axis: (-weights.get(axis["name"], 0.0), axis["name"]))
    return [_slice(axis) for axis in ranked[:SLICES]]


def refinements(explained: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The way of every refinement: its score on items kept back, against items."""
    found = []
    for way in (explained or {}).get("refinements", []):
        points = [(float(look["items"]), look["score"]) for look in way["trajectory"] if look.get("score") is not None]
        picture = svg.curve(points, (), end=0.0, unit="items", stepped=False, width=300, height=190)
        found.append({**way, "picture": picture})
    return found


def _slice(axis: Mapping[str, Any]) -> Markup:
    names = [str(choice) for choice in axis.get("choices", ())]
    points = [
        (
            float(names.index(str(point["value"]))) if names else float(point["value"]),
            point["score"],
            point["state"] == "complete",
        )
        for point in axis["points"]
    ]
    low, high = (-0.5, len(names) - 0.5) if names else (axis["low"], axis["high"])
    return svg.scatter(points, low=low, high=high, names=names, log=bool(axis.get("log")), title=axis["name"])


def _span(label: str, entry: Mapping[str, Any]) -> svg.Span:
    apart = entry["low"] > 0 or entry["high"] < 0
    return svg.Span(label, entry["points"], entry["low"], entry["high"], apart)


def _condition(when: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in when.items()) or "all candidates"


def _of(explained: Mapping[str, Any] | None, part: str, key: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = ((explained or {}).get(part) or {}).get(key) or []
    return found
