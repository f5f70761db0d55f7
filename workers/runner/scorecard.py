"""What a whole evaluation reports: every score with its fingerprint, the protocol's mean, where they come from."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from transformers import PreTrainedModel

from core.protocols import Asked, Evaluation
from evaluation.whole import Ran, Score
from workers.provenance import device_name, provenance

#: What is to be known of a protocol's numbers besides its own summary.
REMARKS = {
    "mmlu": "mmlu is the harness's own number of the group, weighted by documents; the first board took the plain mean "
    "of its 57 subjects.",
}


def report_of(
    asked: Evaluation, ran: dict[str, Ran], model: dict[str, Any], loaded: PreTrainedModel, limit: int | None
) -> dict[str, Any]:
    """All there is to say of the runs, by name of what was asked for."""
    told = [{**asdict(score), "in_macro": False} for each in ran.values() for score in each.scores]
    counted = [_counted(each, ran[each.task].scores) for each in asked.tasks if each.metric is not None]
    for score, entry in zip((s for each in ran.values() for s in each.scores), told, strict=True):
        entry["in_macro"] = any(score is found for found in counted)
    about = {name: entry for each in ran.values() for name, entry in each.about.items()}
    cut = limit is not None and any(entry["n"] < entry["documents"] for entry in about.values())
    seconds, items = sum(each.seconds for each in ran.values()), sum(each.items for each in ran.values())
    return {
        "format": 1,
        "protocol": {
            **asked.protocol.model_dump(mode="json", include={"name", "summary", "sampler"}),
            "whole": asked.whole,
        },
        "model": model,
        "full": not cut,
        "limit": limit,
        "scores": told,
        "macro": _macro(counted) if asked.whole and not cut else None,
        "tasks": about,
        "runs": {
            name: {"seconds": each.seconds, "items": each.items, "items_per_second": each.items / each.seconds}
            for name, each in ran.items()
        },
        "items": items,
        "scoring_seconds": seconds,
        "items_per_second": items / seconds,
        "dtype": str(loaded.dtype).removeprefix("torch."),
        "device": device_name(loaded.device),
        "provenance": provenance(loaded.device),
        "notes": _notes(asked, model, cut),
        "harness": _merged([each.found for each in ran.values()], model),
    }


def _counted(each: Asked, scores: tuple[Score, ...]) -> Score:
    """The score that a protocol goes by: its metric under the task's first filter, of the group where it is one."""
    return next(score for score in scores if score.task == each.task and score.metric == each.metric)


def _macro(counted: list[Score]) -> dict[str, Any] | None:
    """The plain mean of the protocol's scores with its standard error, tasks being independent."""
    values = [score.value for score in counted if score.value is not None]
    if len(values) < len(counted):
        return None
    errors = [score.stderr for score in counted]
    known = [error for error in errors if error is not None]
    spread = math.sqrt(sum(error**2 for error in known)) / len(counted) if len(known) == len(errors) else None
    return {"value": math.fsum(values) / len(values), "stderr": spread, "tasks": len(values)}


def _notes(asked: Evaluation, model: dict[str, Any], cut: bool) -> list[str]:
    notes = [f"protocol {asked.protocol.name}: {asked.protocol.summary}"]
    if cut:
        notes.append("NOT A FULL SCORE: only the first documents of each task, in file order, were read (--limit).")
    if asked.protocol.tasks and not asked.whole:
        names = ", ".join(each.task for each in asked.tasks)
        notes.append(f"only {names} of the protocol's {len(asked.protocol.tasks)} tasks: it has no mean.")
    notes += [REMARKS[each.task] for each in asked.tasks if asked.protocol.tasks and each.task in REMARKS]
    if model["made_by_huarizo"]:
        notes.append(
            "this checkpoint was made here: on items that a search saw while choosing it, scores are optimistic."
        )
    return notes


def _merged(found: list[dict[str, Any]], model: dict[str, Any]) -> dict[str, Any]:
    """The results of several runs as the harness writes those of one, without samples."""
    tables = ("results", "groups", "group_subtasks", "configs", "versions", "n-shot", "higher_is_better", "n-samples")
    merged: dict[str, Any] = {
        table: {name: entry for each in found for name, entry in each.get(table, {}).items()} for table in tables
    }
    if not merged["groups"]:
        del merged["groups"]
    config = {**found[0]["config"], "model": "huarizo", "model_args": f"pretrained={model['ref']}"}
    return {**merged, "config": config, "git_hash": found[0]["git_hash"], "date": found[0]["date"]}


def plain(value: Any) -> Any:
    """The same as JSON can say it: numbers that are not finite become None, what it does not know becomes text."""
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(inner) for inner in value]
    if value is None or isinstance(value, bool | int | str):
        return value
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value)
