"""How one document is judged: lm-eval's `multiple_choice` rule over the log-likelihoods of its choices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.errors import TaskError
from core.objective import Metric
from evaluation.catalog import FileTask


@dataclass(frozen=True)
class AnswerRule:
    """The right choices of one document and the length each choice's log-likelihood is divided by.

    Attributes:
        right: indices of the right choices, one for most tasks.
        lengths: (choices,) characters of each choice under `acc_norm`, ones under `acc`.
    """

    right: tuple[int, ...]
    lengths: NDArray[np.float64]

    def judge(self, log_likelihoods: NDArray[np.float64]) -> tuple[int, float]:
        """Correctness (0 or 1, the first of equal choices wins) and margin (best right minus best wrong, in nats,
        per character under `acc_norm`)."""
        # Four numbers or five: arrays would cost several times what they are worth.
        scores: list[float] = (log_likelihoods / self.lengths).tolist()
        right = max(scores[choice] for choice in self.right)
        wrong = max(score for choice, score in enumerate(scores) if choice not in self.right)
        return int(scores.index(max(scores)) in self.right), right - wrong


def check_metric(task: FileTask, metric: Metric) -> None:
    """Refuse what `AnswerRule` does not reproduce.

    Raises:
        TaskError: the task does not report `metric` as a mean, or judges documents or answers in its own way.
    """
    name = task.config.task
    way_out = f"choose another task, or run it as a whole with `huarizo evaluate MODEL --tasks {name}`"
    reported = sorted({"acc", "acc_norm"} & set(task.aggregation()))
    if metric not in reported:
        raise TaskError(f"task {name!r} does not report {metric!r} but {reported!r}: choose one of these", where=name)
    if getattr(task.aggregation()[metric], "__name__", "") != "mean":
        raise TaskError(f"metric {metric!r} of task {name!r} is no mean of documents: {way_out}", where=name)
    if task.config.process_results is not None or task.config.filter_list is not None:
        raise TaskError(f"task {name!r} judges answers by functions or filters of its own: {way_out}", where=name)


def answer_rule(task: FileTask, document: Mapping[str, Any], metric: Metric) -> AnswerRule:
    """The rule for one document, read as `ConfigurableTask.process_results` reads it.

    Raises:
        TaskError: no choice is right, none is wrong, or an empty choice cannot be normalised.
    """
    choices = list(task.doc_to_choice(document))
    right = _right(task.doc_to_text(document) if task.multiple_input else task.doc_to_target(document), choices)
    if not right or len(right) == len(choices):
        raise TaskError(f"a document needs a right and a wrong choice, but {dict(document)!r} has not: correct it")
    lengths = np.array([float(len(choice)) if metric == "acc_norm" else 1.0 for choice in choices])
    if not lengths.all():
        raise TaskError(f"an empty choice has no acc_norm, but {dict(document)!r} has one: use acc")
    return AnswerRule(right, lengths)


def _right(gold: Any, choices: list[str]) -> tuple[int, ...]:
    if isinstance(gold, str):
        return (choices.index(gold),) if gold in choices else ()
    golds = gold if isinstance(gold, list | tuple) else [gold]
    return tuple(sorted({int(index) for index in golds if 0 <= index < len(choices)}))
