"""From trials and recipes to what the pictures draw."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from api.progress import comparable, leading, macro_stderr
from api.svg import Dot, Level, Slot, percent
from core.jobs import SearchJob
from core.recipe.resolved import Entry, Group, ResolvedRecipe
from core.records import TrialSummary
from core.space_spec import Family, GenerationFamily, MergeFamily


def methods_of(job: SearchJob) -> dict[str, int]:
    """The colour of every method and preset of a job, in the order the job names them."""
    names: dict[str, None] = {}
    for family in job.space.families:
        names.update(dict.fromkeys(_choices(family)))
    return {name: position for position, name in enumerate(names)}


def _choices(family: Family) -> tuple[str, ...]:
    if isinstance(family, MergeFamily):
        return family.methods
    return family.arms if isinstance(family, GenerationFamily) else family.presets


def dots(job: SearchJob, trials: Sequence[TrialSummary], colours: Mapping[str, int]) -> list[Dot]:
    """Every scored candidate; only the leader has a whisker, and only those scored on most items count."""
    candidates = [trial for trial in trials if trial.origin != "parent"]
    counted, best = {trial.id for trial in comparable(candidates)}, leading(candidates)
    return [
        Dot(
            number=trial.number,
            score=trial.macro,
            series=colours.get(trial.method, len(colours)),
            square=trial.family != "merge",
            faint=trial.id not in counted,
            stderr=macro_stderr(job.objective, trial.scores) if best is not None and trial.id == best.id else None,
            title=f"{trial.number}: {name_of(trial)}, {percent(trial.macro)} on {trial.scored_items} items per task",
        )
        for trial in candidates
        if trial.macro is not None
    ]


def levels(trials: Sequence[TrialSummary]) -> list[Level]:
    """The parents' scores."""
    return [Level(t.macro, t.label) for t in trials if t.origin == "parent" and t.macro is not None]


def name_of(trial: TrialSummary) -> str:
    """What people call a trial: its label, else its method."""
    return trial.label or trial.method


def slots(resolved: ResolvedRecipe, names: Sequence[str], colours: Mapping[str, int]) -> list[Slot]:
    """One row for the embedding, each output layer and the head, cut by how much each source weighs."""
    rows = [("embed", resolved.embed), *((str(i), entry) for i, entry in enumerate(resolved.layers))]
    return [_slot(label, entry, names, colours) for label, entry in (*rows, ("head", resolved.head))]


def _slot(label: str, entry: Entry, names: Sequence[str], colours: Mapping[str, int]) -> Slot:
    parts = []
    for (source, layer), weight in zip(entry.sources, shares(entry), strict=True):
        if weight > 0:
            name = names[source]
            place = "" if layer < 0 else f" layer {layer}"
            title = f"{label}: {name}{place}, {weight * 100:.0f} % ({entry.method})"
            parts.append((colours.get(name, source), weight, str(layer) if layer >= 0 else name, title))
    return Slot(label, tuple(parts))


def shares(entry: Entry) -> list[float]:
    """How much each source of an entry weighs, summing to 1: the mean over its tensors of the weights' sizes.

    Where deltas are taken against a base, the base has what the weights leave of 1. A picture, not the arithmetic:
    trimming and sign election are not seen here.
    """
    total = [0.0] * len(entry.sources)
    for group in entry.groups:
        for position, weight in enumerate(_group_shares(entry, group)):
            total[position] += weight * len(group.tensors)
    whole = math.fsum(total)
    return [weight / whole for weight in total] if whole > 0 else [1 / len(total)] * len(total)


def _group_shares(entry: Entry, group: Group) -> list[float]:
    count = len(entry.sources)
    if count == 2 and "t" in group.params and entry.base is None:
        t = float(group.params["t"])
        return [1 - t, t]
    weights = [float(values.get("weight", 0.0)) for values in group.source_params]
    if len(weights) != count or not any(weights):
        return [1 / count] * count
    if group.params.get("normalize") is True and math.fsum(weights) != 0:
        whole = math.fsum(weights)
        weights = [weight / whole for weight in weights]
    if entry.base is not None:
        scale = float(group.params.get("lambda", 1.0))
        weights = [weight * scale for weight in weights]
        weights[entry.base] = max(0.0, 1 - math.fsum(weights))
    sizes = [abs(weight) for weight in weights]
    return [size / math.fsum(sizes) for size in sizes]
