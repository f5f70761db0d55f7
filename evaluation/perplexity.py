"""Perplexity on the prompts of a few questions: a cheap look at whether a model still speaks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from transformers import PreTrainedModel

from evaluation.prepare import PreparedTask
from evaluation.trees import Tokens

#: Questions of each task that are read, and tokens of each.
ITEMS, TOKENS = 16, 512


def texts(task: PreparedTask, numbers: Sequence[int]) -> list[Tokens]:
    """The first documents' texts: each its prompt with its first answer.

    Args:
        task: made ready for the model's tokenizer.
        numbers: canonical numbers; the first `ITEMS` are taken.

    Returns:
        token ids, at most `TOKENS` each; texts of one token, which predict nothing, are left out.
    """
    found = []
    for number in numbers[:ITEMS]:
        tree = task.documents[number].tree
        # In depth-first order the first leaf ends the first text.
        leaf = int(np.nonzero(tree.end == np.arange(1, len(tree) + 1))[0][0])
        found.append(tree.tokens[: min(leaf + 1, TOKENS)])
    return [text for text in found if len(text) > 1]


@torch.no_grad()
def perplexity(model: PreTrainedModel, read: Sequence[Tokens], device: torch.device) -> float:
    """exp of the mean negative log-likelihood of every token but the first of each text; may be inf or NaN.

    Args:
        model: a causal language model on `device`.
        read: token ids, at least one text.
        device: where.
    """
    model.eval()
    total, count = 0.0, 0
    for text in read:
        tokens = torch.from_numpy(np.asarray(text, dtype=np.int64)).to(device)
        logits = model(input_ids=tokens[None], use_cache=False).logits[0, :-1].float()
        total += float(torch.nn.functional.cross_entropy(logits, tokens[1:], reduction="sum"))
        count += len(text) - 1
    mean = total / count
    return math.exp(mean) if mean < 700 else math.inf if mean == mean else math.nan
