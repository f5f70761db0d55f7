"""The resident scoring loop: one candidate's outcomes on some canonical documents of a prepared task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from transformers import PreTrainedModel

from core.errors import CancelledError, NonFiniteWeightsError, TaskError, UnknownTaskError
from core.outcomes import Outcomes
from evaluation.likelihood import LikelihoodReader, Likelihoods
from evaluation.prepare import Prepared, PreparedTask
from evaluation.reuse import HiddenStore, Stack
from evaluation.trunks import Trunks


def never() -> bool:
    """The default of `cancelled`: go on."""
    return False


class Layers(NamedTuple):
    """Names of a model's weights by content, and whose candidate it is.

    Attributes:
        embed: names what stands before its layers.
        layers: names each layer, from below.
        study: where other candidates may have its lower layers; None where that is not to be expected.
    """

    embed: str
    layers: tuple[str, ...]
    study: str | None = ""


class Scorer:
    """Scores any candidate of one tokenizer and vocabulary; holds no state of a candidate.

    Args:
        prepared: the tasks, made ready once.
        device: where the candidate's weights are.
        dtype: the type of its weights, and so of the forward pass; log-probabilities are always float32.
        batch_tokens: tokens of one forward pass; lowered by itself when the device runs out of memory.
        hidden: keeps the hidden states of lower stacks from candidate to candidate; None reads every layer.
    """

    def __init__(
        self,
        prepared: Prepared,
        *,
        device: torch.device,
        dtype: torch.dtype,
        batch_tokens: int | None = None,
        hidden: HiddenStore | None = None,
    ) -> None:
        self.prepared, self.device, self.dtype = prepared, device, dtype
        self.hidden = hidden
        self.reader = LikelihoodReader(device, batch_tokens)

    def score(
        self,
        model: PreTrainedModel,
        task: str,
        numbers: Sequence[int],
        *,
        cancelled: Callable[[], bool] = never,
        on_block: Callable[[Outcomes], None] | None = None,
        block_items: int = 128,
        layers: Layers | None = None,
    ) -> Outcomes:
        """Outcomes of `model` on the documents `numbers` of `task`.

        In float32 neither blocks nor budgets change an outcome, but for the last bits of margins (some 1e-4 nats at
        most): the order in which a matrix product sums depends on its size.

        Args:
            model: a causal language model on the scorer's device and of its dtype.
            task: a name in `prepared`.
            numbers: canonical document numbers, each once, in the order to score them in.
            cancelled: asked between batches.
            on_block: called with each block's outcomes as soon as they are there.
            block_items: documents of a block.
            layers: what the model is made of; with it, layers that an earlier candidate shared from below are not
                read again. Outcomes are the same without.

        Raises:
            CancelledError: `cancelled()` returned true; blocks already handed to `on_block` stand.
            NonFiniteWeightsError: a log-likelihood is NaN or infinite.
            OutOfMemoryError: not even one document fits the device.
            UnknownTaskError: the task was not prepared.
            TaskError: the model's vocabulary lacks a token of the prompts.
            ValueError: numbers outside the task or named twice, or a model of another dtype.
        """
        if task not in self.prepared.tasks:
            raise UnknownTaskError.suggest(task, self.prepared.tasks, where=task)
        prepared = self.prepared.tasks[task]
        self._check(model, prepared, numbers)
        stack = None if layers is None or self.hidden is None else self.hidden.stack(model, *layers)
        found, trunks = [], Trunks()
        for start in range(0, len(numbers), block_items):
            if cancelled():
                raise CancelledError("scoring was cancelled between two blocks: score the missing documents later")
            block = self._block(model, prepared, numbers[start : start + block_items], cancelled, stack, trunks)
            found.extend(block.items())
            if on_block is not None:
                on_block(block)
        return Outcomes.of(found)

    def _block(
        self,
        model: PreTrainedModel,
        prepared: PreparedTask,
        numbers: Sequence[int],
        cancelled: Callable[[], bool],
        stack: Stack | None,
        trunks: Trunks,
    ) -> Outcomes:
        documents = [prepared.documents[number] for number in numbers]
        trees = [document.tree for document in documents]
        answers = self.reader.read(model, trees, cancelled=cancelled, stack=stack, trunks=trunks)
        _refuse_non_finite(answers, numbers, prepared.spec.task)
        judged = [document.rule.judge(answer.sums) for document, answer in zip(documents, answers, strict=True)]
        return Outcomes.of((number, correct, margin) for number, (correct, margin) in zip(numbers, judged, strict=True))

    def _check(self, model: PreTrainedModel, prepared: PreparedTask, numbers: Sequence[int]) -> None:
        count = prepared.content.documents
        if len(set(numbers)) != len(numbers) or any(not 0 <= number < count for number in numbers):
            raise ValueError(f"numbers must be among 0 to {count - 1}, each once: take them from the task's content")
        if model.dtype != self.dtype:
            raise ValueError(f"the scorer was made for {self.dtype} but the model is {model.dtype}: cast the model")
        vocabulary = model.get_input_embeddings().weight.shape[0]
        if prepared.largest_token >= vocabulary:
            raise TaskError(
                f"the prompts hold token {prepared.largest_token} but the model's vocabulary has {vocabulary} entries: "
                "prepare with the model's own tokenizer",
                where=prepared.spec.task,
            )


def _refuse_non_finite(answers: Sequence[Likelihoods], numbers: Sequence[int], task: str) -> None:
    if np.isfinite(np.concatenate([answer.sums for answer in answers])).all():
        return
    for number, answer in zip(numbers, answers, strict=True):
        if not np.isfinite(answer.sums).all():
            raise NonFiniteWeightsError(
                f"log-likelihoods must be finite, but document {number} of task {task!r} has {answer.sums.tolist()!r}: "
                "the candidate's weights overflow; lower its scale or coefficients",
                where=f"{task}:{number}",
            )
