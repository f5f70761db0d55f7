"""The loss of a model on some documents, with its gradient: cross-entropy over each document's choices.

A document's choices have the log-likelihoods by which lm-eval judges it: summed over the continuation for `acc`, per
character for `acc_norm` (then times the mean length of the document's choices, so that both are nats of a whole answer
and one temperature serves both). Their softmax is a distribution over the choices, and the loss is minus the logarithm
of what it gives to the right ones.

Documents are read as when they are scored, as tries under masks where the architecture takes them and as plain rows
elsewhere, but with a graph; layers may be read a second time in the backward pass instead of being remembered.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from core.errors import NonFiniteWeightsError
from core.outcomes import Outcomes
from evaluation.architectures import capped, known, refusal, tree_masks
from evaluation.budget import LOGITS, affordable_tokens
from evaluation.likelihood import Packing
from evaluation.packing import Batch, assemble, fitting, pack, place, plain_rows, rows_by_length
from evaluation.prepare import Document
from evaluation.reuse import body_layers

#: The share of the memory for scoring's tokens that a pass with a graph is given where layers are remembered, and not.
REMEMBERED, RECOMPUTED = 1 / 16, 1 / 4
#: Tokens of one pass with a graph on a CPU, where memory is not what limits it.
CPU_TOKENS = 8192


class Lesson(NamedTuple):
    """A document, its part of the loss, and what its choices' log-likelihoods are divided by, in nats of an answer."""

    document: Document
    weight: float
    temperature: float = 1.0


def differentiate(
    model: PreTrainedModel,
    lessons: Sequence[Lesson],
    *,
    batch_tokens: int | None = None,
    recompute: bool | None = None,
) -> float:
    """The weighted sum of the lessons' losses; its gradient is added to the parameters that require one.

    Args:
        model: a causal language model, some of whose parameters require a gradient.
        lessons: documents with weights. No document is split between two passes.
        batch_tokens: tokens of one pass with its graph; None takes what the device has room for.
        recompute: read each layer again in the backward pass instead of remembering what it computed; None does so
            on a GPU.

    Raises:
        NonFiniteWeightsError: the loss is NaN or infinite.
    """
    model.eval()
    again = model.device.type != "cpu" if recompute is None else recompute
    tokens = _affordable(model, lessons, again) if batch_tokens is None else batch_tokens
    total = 0.0
    with _recomputed(model) if again else _as_it_is():
        for group in _groups(lessons, tokens):
            loss = _loss(model, group, tokens)
            if not torch.isfinite(loss):
                found = float(loss.detach())
                raise NonFiniteWeightsError(
                    f"a loss must be finite, but {len(group)} documents have {found!r}: start from smaller coefficients"
                )
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
    return total


def smoothed(results: Outcomes) -> float:
    """The mean of Phi(margin / h), h a quarter of the median |margin|: accuracy without its steps; 0 where empty."""
    if not len(results):
        return 0.0
    margins = torch.tensor(results.margins, dtype=torch.float64)
    softness = 0.25 * float(np.median(np.abs(results.margins)))
    if softness <= 0.0:
        return float((0.5 + 0.5 * margins.sign()).mean())
    return float(torch.special.ndtr(margins / softness).mean())


def _affordable(model: PreTrainedModel, lessons: Sequence[Lesson], again: bool) -> int:
    """Of what fits without a graph, a share: the residual stream of every layer is kept, or all that layers compute."""
    if model.device.type != "cuda":
        return CPU_TOKENS
    longest = max((len(lesson.document.tree) for lesson in lessons), default=1)
    return int(affordable_tokens(model, model.device, longest) * (RECOMPUTED if again else REMEMBERED))


def _groups(lessons: Sequence[Lesson], tokens: int) -> Iterator[list[Lesson]]:
    """Documents that are read together, as many as fit."""
    group: list[Lesson] = []
    size = 0
    for lesson in lessons:
        length = len(lesson.document.tree)
        if group and size + length > tokens:
            yield group
            group, size = [], 0
        group.append(lesson)
        size += length
    if group:
        yield group


def _loss(model: PreTrainedModel, lessons: Sequence[Lesson], tokens: int) -> Tensor:
    likelihoods = _likelihoods(model, lessons, tokens)
    total = torch.zeros((), dtype=likelihoods.dtype, device=likelihoods.device)
    start = 0
    for document, weight, temperature in lessons:
        rule = document.rule
        stop = start + len(rule.lengths)
        scale = torch.tensor(rule.lengths.mean() / rule.lengths / temperature, dtype=likelihoods.dtype)
        scores = likelihoods[start:stop] * scale.to(likelihoods.device)
        if rule.right:
            loss = torch.logsumexp(scores, 0) - torch.logsumexp(scores[list(rule.right)], 0)
        else:  # It is wrong whatever the model says.
            loss = 0.0 * scores.sum()
        total = total + weight * loss
        start = stop
    return total


def _likelihoods(model: PreTrainedModel, lessons: Sequence[Lesson], tokens: int) -> Tensor:
    """(requests,) log-likelihood of every choice of every document, in order, with a graph."""
    placed = place([lesson.document.tree for lesson in lessons])
    longest = max(int(item.tree.depth.max()) + 1 for item in placed)
    refused = refusal(model, longest)
    by_length = refused is not None and refused.by_length
    if refused is None:
        rows = pack(placed, Packing.on(model.device).row_nodes)
    else:
        rows = rows_by_length(placed) if by_length else plain_rows(placed)
    slots, scores = [], []
    while rows:
        count = fitting(rows, tokens, by_length=by_length)
        batch = assemble(rows[:count])
        scores.append(_scores(model, batch, longest))
        slots.append(batch.entry_slot)
        rows = rows[count:]
    found = torch.cat(scores)
    slot = torch.from_numpy(np.concatenate(slots)).to(found.device)
    requests = sum(lesson.document.tree.requests for lesson in lessons)
    return torch.zeros(requests, dtype=found.dtype, device=found.device).index_add(0, slot, found)


def _scores(model: PreTrainedModel, batch: Batch, longest: int) -> Tensor:
    """(m,) log-probability of each entry's token; in float32, or the model's own dtype where that is wider."""
    device = model.device
    tokens, predicting = _to(batch.tokens, device), _to(batch.predicting, device)
    row, target = _to(batch.entry_row, device), _to(batch.entry_target, device)
    if not known(model):
        rows = model(tokens, use_cache=False).logits.flatten(0, 1)[predicting]
        return _chosen(_wide(rows), row, target)
    masks = places = None
    if not batch.causal:
        places = _to(batch.depth, device)
        masks = tree_masks(model, _to(batch.end, device), places, longest)
    hidden = model.base_model(
        tokens, attention_mask=masks, position_ids=places, use_cache=False
    ).last_hidden_state.flatten(0, 1)[predicting]
    return _headed(model, hidden, row, target)


def _headed(model: PreTrainedModel, hidden: Tensor, row: Tensor, target: Tensor) -> Tensor:
    """Scores from hidden states; where the logits of all rows are too many to be kept, some at a time, and not kept."""
    step = max(1, LOGITS // model.config.vocab_size)
    head = partial(_head, model)
    if len(hidden) <= step:
        return head(hidden, row, target)
    scores = torch.zeros(len(row), dtype=torch.float32, device=row.device)
    for start in range(0, len(hidden), step):
        here = torch.nonzero(row // step == start // step).flatten()
        part = checkpoint(head, hidden[start : start + step], row[here] - start, target[here], use_reentrant=False)
        scores = scores.to(part.dtype).index_add(0, here, part)
    return scores


def _head(model: PreTrainedModel, hidden: Tensor, row: Tensor, target: Tensor) -> Tensor:
    embeddings: Any = model.get_output_embeddings()
    return _chosen(capped(model, _wide(embeddings(hidden))), row, target)


def _chosen(logits: Tensor, row: Tensor, target: Tensor) -> Tensor:
    return logits[row, target] - torch.logsumexp(logits, dim=-1)[row]


def _wide(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


def _to(values: np.ndarray[Any, np.dtype[np.int64]], device: torch.device) -> Tensor:
    return torch.from_numpy(values).to(device)


@contextmanager
def _as_it_is() -> Iterator[None]:
    yield


@contextmanager
def _recomputed(model: PreTrainedModel) -> Iterator[None]:
    """Every layer forgets what it computed, and computes it again in the backward pass.

    transformers' own switch works in training mode only, in which dropout would change the candidate.
    """
    layers = list(body_layers(model) or ())
    for layer in layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward
