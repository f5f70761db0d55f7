"""What one needs to know about a task before anything is scored on it."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from core.outcomes import bitmap
from core.tasks import TaskContent, kin_of
from evaluation.answers import asks_twice
from evaluation.catalog import TaskFolders
from evaluation.documents import Part, canonical_parts, content_digest, evenly, side_text, sides
from evaluation.randomness import as_in_the_harness

#: Prompts read for the mean length, which only serves estimates.
_SAMPLED_PROMPTS = 256


def inspect_task(name: str, folders: TaskFolders) -> TaskContent:
    """Load a task's documents and describe them: numbers, sides, metrics and digest.

    Raises:
        UnknownTaskError: no such task.
        TaskError: its documents cannot be had, or it is of a kind that cannot be scored.
    """
    with as_in_the_harness():
        return describe(name, canonical_parts(name, folders))


def describe(name: str, parts: Sequence[Part]) -> TaskContent:
    """The content of a task whose canonical documents are at hand."""
    task, side = parts[0].task, sides(parts)
    characters, choices = _mean_sizes(parts)
    return TaskContent(
        name=name,
        version=str(task.VERSION),
        content_digest=content_digest(parts),
        documents=len(side),
        search=bitmap((n for n, s in enumerate(side) if s == "search"), len(side)).hex(),
        metrics=tuple(metric for metric in ("acc", "acc_norm") if metric in task.aggregation()),
        has_fewshot=not task.forbids_shots and len(task.sampler.docs) > 0,
        kin="".join(kin_of(side_text(part.task, document)) for part in parts for document in part.documents),
        mean_characters=characters,
        mean_choices=choices,
    )


def _mean_sizes(parts: Sequence[Part]) -> tuple[float, float]:
    """Mean characters of a prompt with one choice, and mean number of choices, without examples."""
    sampled = [(part.task, doc) for part in parts for doc in evenly(part.documents, _SAMPLED_PROMPTS // len(parts))]
    requests = [
        task.construct_requests(doc, task.fewshot_context(doc, 0), metadata=(task.config.task, 0, 1))
        for task, doc in sampled
    ]
    if asks_twice(parts[0].task):
        requests = [group[: len(group) // 2] for group in requests]
    texts = ["".join(request.args) for group in requests for request in group]
    return fmean(map(len, texts)), fmean(map(len, requests))
