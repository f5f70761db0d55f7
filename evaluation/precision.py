"""What half precision changes: outcomes beside those that the same weights give in float32."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import PreTrainedModel

from core.errors import OutOfMemoryError
from core.outcomes import Outcomes
from evaluation.prepare import Prepared
from evaluation.scorer import Scorer, never

#: The harness's metrics that call a document right or wrong.
JUDGEMENTS = ("acc", "acc_norm", "exact_match")


class Agreement(NamedTuple):
    """How many documents were scored both ways, and how many of them were right in one way and wrong in the other."""

    items: int
    differing: int


def widened(model: PreTrainedModel) -> PreTrainedModel:
    """The same model with its weights in float32; tensors that layers share are shared there, too.

    Raises:
        OutOfMemoryError: the device has no room for it beside the model.
    """
    wide: dict[int, object] = {}
    try:
        for weight in model.parameters():
            wide[id(weight)] = nn.Parameter(weight.data.float(), requires_grad=False)
        for buffer in model.buffers():
            wide[id(buffer)] = buffer.float() if buffer.is_floating_point() else buffer.clone()
        return copy.deepcopy(model, wide)
    except torch.OutOfMemoryError as error:
        wide.clear()
        torch.cuda.empty_cache()
        raise OutOfMemoryError(
            f"{model.device} has no room for float32 weights beside those of {model.dtype}: leave the comparison out"
        ) from error


def agreement(
    model: PreTrainedModel,
    prepared: Prepared,
    found: Mapping[str, tuple[Sequence[int], Outcomes]],
    *,
    cancelled: Callable[[], bool] = never,
) -> dict[str, Agreement]:
    """Compare outcomes with those of float32, task by task.

    Args:
        model: what was scored, in half precision.
        prepared: the tasks.
        found: of each task, some documents and outcomes that hold theirs.
        cancelled: asked between batches.

    Raises:
        CancelledError: `cancelled()` returned true.
        OutOfMemoryError: the device has no room for float32.
    """
    wide = widened(model)
    scorer = Scorer(prepared, device=model.device, dtype=torch.float32)
    seen = {}
    for task, (numbers, outcomes) in found.items():
        exact = scorer.score(wide, task, numbers, cancelled=cancelled)
        half = outcomes.select(numbers)
        differing = sum(one != other for one, other in zip(half.correct, exact.correct, strict=True))
        seen[task] = Agreement(len(exact), differing)
    return seen


def sample_agreement(one: dict[str, list[dict[str, Any]]], other: dict[str, list[dict[str, Any]]]) -> Agreement:
    """The same of the harness's samples by task: documents of which a judgement is right in one and wrong in the other.

    Documents without a judgement (perplexities, say) are not counted.
    """
    items = differing = 0
    for task, rows in one.items():
        judged: dict[int, bool] = {}
        for row, same in zip(rows, other[task], strict=True):
            unlike = [row[name] != same[name] for name in JUDGEMENTS if name in row]
            if unlike:
                judged[row["doc_id"]] = judged.get(row["doc_id"], False) or any(unlike)
        items += len(judged)
        differing += sum(judged.values())
    return Agreement(items, differing)
