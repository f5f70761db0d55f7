"""The model card of an exported checkpoint: what it was made of, how it scored, and what that is worth."""

from __future__ import annotations

import json
from collections.abc import Sequence

from core.recipe.short import Recipe
from core.records import JobRecord, Score, TrialRecord
from core.statistics import shown_p

RESTACKED = (
    "This model repeats or removes layers of its parents. Such models are meant to be trained further: without "
    "continued training, re-stacked models rarely beat the model they were cut from."
)

_OPTIMISTIC = "Chosen by these items, therefore optimistic."
_UNSEEN = "Questions that the search never saw."

#: Name, scores per task, their mean.
_Result = tuple[str, Sequence[Score], float | None]


def model_card(job: JobRecord, trial: TrialRecord, rivals: Sequence[TrialRecord]) -> str:
    """Markdown with front matter for the Hugging Face hub.

    Args:
        job: the search that found the candidate.
        trial: the exported candidate.
        rivals: the job's trials; parents among them are shown beside the winner.
    """
    parents = [t for t in rivals if t.origin == "parent" and t.id != trial.id]
    parts = [
        _front_matter(trial, job),
        f"# {' '.join(job.name.split()) or 'A model bred by Huarizo'}",
        _origin(job, trial),
        _scores_section("Scores on the items of the search", _OPTIMISTIC, job, _results(trial, parents, False)),
        _scores_section("Scores on held-out items", _UNSEEN, job, _results(trial, parents, True)),
        _verdict(job, trial),
        f"> {RESTACKED}" if is_restacked(trial) else "",
        "## Recipe\n\n```json\n"
        + json.dumps(trial.recipe.model_dump(mode="json", exclude_none=True), indent=2)
        + "\n```",
        f"Recipe digest `{trial.recipe_digest}`. Hashes of all files are in `huarizo.json`.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def is_restacked(trial: TrialRecord) -> bool:
    """Whether any output layer stands where its source layer did not, or layers are missing."""
    taken = [[layer for _, layer in entry.sources] for entry in trial.resolved.layers]
    return any(set(layers) != {position} for position, layers in enumerate(taken)) or trial.recipe.layout is not None


def _front_matter(trial: TrialRecord, job: JobRecord) -> str:
    refs = [m.ref.removeprefix("hub:").split("@")[0] for m in job.request.models if m.ref.startswith("hub:")]
    lines = ["---", "library_name: transformers", "tags:", "- merge", "- huarizo"]
    lines += ["base_model:", *(f"- {ref}" for ref in refs)] if refs else []
    return "\n".join([*lines, "---"])


def _what(recipe: Recipe) -> str:
    """The method, preset or arm that made it."""
    if recipe.generation is not None:
        return recipe.generation.arm
    if recipe.merge is not None:
        return recipe.merge.method
    return recipe.layout.preset if recipe.layout is not None else "slices"


def _origin(job: JobRecord, trial: TrialRecord) -> str:
    models = "\n".join(f"- `{model.name}`: `{model.ref}`" for model in job.request.models)
    what = _what(trial.recipe)
    head = f"Candidate {trial.number} of a Huarizo search (`{what}`), saved in {trial.resolved.save_dtype}."
    return f"{head}\n\n## Parents\n\n{models}"


def _results(trial: TrialRecord, parents: Sequence[TrialRecord], heldout: bool) -> list[_Result]:
    """Name, scores and their mean of everybody who has been scored on that side."""
    rows = [(trial.label or f"candidate {trial.number}", trial), *((p.label, p) for p in parents)]
    found = [(name, t.heldout if heldout else t.scores, t.macro_heldout if heldout else t.macro) for name, t in rows]
    return [row for row in found if row[1]]


def _scores_section(title: str, note: str, job: JobRecord, results: Sequence[_Result]) -> str:
    if not results:
        return ""
    objective = job.request.objective
    tasks = [f"{spec.task} ({spec.metric_name}, {spec.num_fewshot}-shot)" for spec in objective.tasks]
    head = f"| model | {' | '.join(tasks)} | mean |\n|---|{'---|' * (len(tasks) + 1)}"
    body = "\n".join(
        f"| {name} | {' | '.join(_cell(s) for s in scores)} | {macro:.4f} |" for name, scores, macro in results
    )
    told = f"{note} Protocol `{objective.protocol}`; values ± one standard error over n items."
    return f"## {title}\n\n{told}\n\n{head}\n{body}"


def _cell(score: Score) -> str:
    return f"{score.value:.4f} ± {score.stderr:.4f} (n={score.n})"


def _verdict(job: JobRecord, trial: TrialRecord) -> str:
    verdict = job.verdict
    if not verdict:
        return ""
    if verdict.get("reason"):
        return f"## Verdict: {verdict['verdict']}\n\nNothing was compared on held-out items: {verdict['reason']}."
    if verdict["winner"]["trial_id"] != trial.id:
        return "## Verdict\n\nNone for this candidate: the proof of its search was about another one."
    told = {
        "gain": "better than the best parent on held-out items",
        "no gain": "not proven better than the best parent on held-out items",
        "worse": "worse than the best parent on held-out items",
    }
    points, low, high = verdict["points"], verdict["low"], verdict["high"]
    return (
        f"## Verdict: {verdict['verdict']}\n\nThe best candidate is {told[verdict['verdict']]}: {points:+.2f} "
        f"percentage points of the mean (95 % interval {low:+.2f} to {high:+.2f}, one-sided {shown_p(verdict['p'])}, "
        f"paired over the same items). These held-out items have been read {verdict['heldout_reads']} times."
    )
