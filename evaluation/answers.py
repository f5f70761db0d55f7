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

#: What the harness puts for a gold that names no choice.
_NO_CHOICE = -100


@dataclass(frozen=True)
class AnswerRule:
    """The right choices of one document and the length each choice's log-likelihood is divided by.

    Attributes:
        right: indices of the right choices, one for most tasks. None where the gold names no choice: the document
            counts as wrong whatever is chosen.
        lengths: (choices,) characters of each choice under `acc_norm`, ones under `acc`.
    """

    right: tuple[int, ...]
    lengths: NDArray[np.float64]

    def judge(self, log_likelihoods: NDArray[np.float64]) -> tuple[int, float]:
        """Correctness (0 or 1, the first of equal choices wins) and margin (best right minus best wrong, in nats,
        per character under `acc_norm`; 0 where no answer can be told from another)."""
        # Four numbers or five: arrays would cost several times what they are worth.
        scores: list[float] = (log_likelihoods / self.lengths).tolist()
        if not 0 < len(self.right) < len(scores):
            return int(bool(self.right)), 0.0
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
        choose = f"choose one of these, or run it as a whole with `huarizo evaluate MODEL --tasks {name}`"
        raise TaskError(f"task {name!r} does not report {metric!r} but {reported!r}: {choose}", where=name)
    if getattr(task.aggregation()[metric], "__name__", "") != "mean":
        raise TaskError(f"metric {metric!r} of task {name!r} is no mean of documents: {way_out}", where=name)
    if task.config.process_results is not None or task.config.filter_list is not None:
        raise TaskError(f"task {name!r} judges answers by functions or filters of its own: {way_out}", where=name)


def asks_twice(task: FileTask) -> bool:
    """Whether the harness also asks for every choice without its question, which only `acc_mutual_info` looks at."""
    return "acc_mutual_info" in task.aggregation()


def answer_rule(task: FileTask, document: Mapping[str, Any], metric: Metric) -> AnswerRule:
    """The rule for one document, read as `ConfigurableTask.process_results` reads it.

    A gold that names no choice (an index past the last, -100, a text that is none of them) makes the document count as
    wrong, as in the harness.

    Raises:
        TaskError: the harness cannot read the gold, or an empty choice cannot be normalised.
    """
    choices = list(task.doc_to_choice(document))
    gold = task.doc_to_text(document) if task.multiple_input else task.doc_to_target(document)
    try:
        right = _right(gold, choices, several=bool(task.multiple_target))
    except (TypeError, IndexError) as error:
        kind = "a list of indices" if task.multiple_target else "an index or a choice"
        raise TaskError(
            f"the right answer of a document must be {kind}, as in the task's first, but is {gold!r} ({error}) in "
            f"{dict(document)!r}: correct doc_to_target or the data"
        ) from error
    lengths = np.array([float(len(choice)) if metric == "acc_norm" else 1.0 for choice in choices])
    if not lengths.all():
        raise TaskError(
            f"an empty choice has no acc_norm, but {dict(document)!r} has one: use acc, or run the task as a whole "
            "with `huarizo evaluate`"
        )
    return AnswerRule(right, lengths)


def _right(gold: Any, choices: list[str], *, several: bool) -> tuple[int, ...]:
    """The right choices, by the harness's steps; raises where these do."""
    count = len(choices)
    if isinstance(gold, list):
        gold = [index if index < count else _NO_CHOICE for index in gold]
    elif isinstance(gold, int):
        gold = gold if gold < count else _NO_CHOICE
    elif isinstance(gold, str):
        gold = choices.index(gold) if gold in choices else _NO_CHOICE
    if several != isinstance(gold, list | tuple | set):
        raise TypeError(f"{type(gold).__name__} where the first document has {'several' if several else 'one'}")
    right = set()
    for index in gold if several else [gold]:
        # The harness looks up whether a right choice was the greedy one, counting back from the end below 0.
        if index != _NO_CHOICE and range(count)[index] == index:
            right.add(int(index))
    return tuple(sorted(right))
