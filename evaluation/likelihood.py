"""Log-likelihoods of token tries under a causal language model.

Tries are packed several to a row under a mask that lets each node see its ancestors only, so that what a document's
choices share is read once; where the architecture does not allow such a mask, each request is read as a plain row. The
output embedding is applied only where a continuation token is predicted, and its log-softmax is taken in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from core.errors import CancelledError, OutOfMemoryError
from evaluation.trees import Tokens, TokenTree, chains

#: Architectures whose logits are `output_embeddings(base_model(...))` and which take a ready 4D mask.
PLAIN_ARCHITECTURES = frozenset({"llama", "mistral", "qwen2", "qwen3"})
#: Rotary embeddings that do not depend on the longest text of a batch.
_FIXED_ROTARY = frozenset({None, "default", "linear", "llama3", "yarn"})
#: Tokens of one forward pass.
DEFAULT_BATCH_TOKENS = {"cpu": 1024, "cuda": 16384}
#: Nodes that rows are filled up to; longer tries get a row of their own. Fuller rows mean less padding in large batches
#: but more attention to what a mask hides; with small batches of like lengths there is little to fill.
ROW_NODES = {"cpu": 64, "cuda": 512}
#: Logits held at once (elements): bounds memory with large vocabularies.
_LOGITS = 1 << 26


@dataclass(frozen=True)
class Likelihoods:
    """One trie's answers, in request order.

    Attributes:
        sums: (requests,) log-likelihood of each continuation in nats, summed in float64.
        greedy: (requests,) whether every continuation token is the most probable one.
    """

    sums: NDArray[np.float64]
    greedy: NDArray[np.bool_]


@dataclass(frozen=True)
class Batch:
    """Rows of packed tries, right-padded with nodes that see only themselves.

    Attributes:
        tokens, depth, end: (rows, length); `end` counts within the row.
        predicting: (r,) flat indices of the nodes that predict something.
        entry_row: (m,) index into `predicting`; entry_target: (m,) the token; entry_slot: (m,) the request, counted
            over all requests of the call.
        causal: whether each row is one unbranched text, so that no mask is needed.
    """

    tokens: NDArray[np.int64]
    depth: NDArray[np.int64]
    end: NDArray[np.int64]
    predicting: NDArray[np.int64]
    entry_row: NDArray[np.int64]
    entry_target: NDArray[np.int64]
    entry_slot: NDArray[np.int64]
    causal: bool


@dataclass(frozen=True)
class Placed:
    """A trie and the slot of its first request."""

    tree: TokenTree
    slot: int


class LikelihoodReader:
    """Computes log-likelihoods within a memory budget that it lowers when the device runs out.

    Args:
        device: where the model is.
        batch_tokens: tokens of one forward pass at most (a longer text gets its own pass).
        row_nodes: nodes that rows are filled up to; 0 gives every document its own row.
    """

    def __init__(self, device: torch.device, batch_tokens: int | None = None, row_nodes: int | None = None) -> None:
        self.device = device
        self.batch_tokens = batch_tokens or DEFAULT_BATCH_TOKENS.get(device.type, DEFAULT_BATCH_TOKENS["cpu"])
        self.row_nodes = ROW_NODES.get(device.type, ROW_NODES["cpu"]) if row_nodes is None else row_nodes

    def read(
        self, model: PreTrainedModel, trees: Sequence[TokenTree], *, cancelled: Callable[[], bool]
    ) -> list[Likelihoods]:
        """The log-likelihoods of every request of every trie, in order.

        Raises:
            CancelledError: `cancelled()` said so between two batches.
            OutOfMemoryError: not even one row fits the device.
        """
        model.eval()
        slots = np.cumsum([0, *(tree.requests for tree in trees)])
        placed = [Placed(tree, int(slot)) for tree, slot in zip(trees, slots[:-1], strict=True)]
        forest = takes_forests(model, max((int(tree.depth.max()) + 1 for tree in trees), default=0))
        rows = _pack(placed, self.row_nodes) if forest else _plain_rows(placed)
        answers = [*self._answers(model, rows, cancelled)]
        return _sum_up(answers, slots)

    def _answers(
        self, model: PreTrainedModel, rows: list[list[Placed]], cancelled: Callable[[], bool]
    ) -> Iterator[tuple[Batch, Tensor, Tensor]]:
        waiting = rows
        while waiting:
            if cancelled():
                raise CancelledError("scoring was cancelled: nothing of this block is kept")
            count = _fitting(waiting, self.batch_tokens)
            batch = _assemble(waiting[:count])
            try:
                answer = _forward(model, batch, self.device)
            except torch.OutOfMemoryError:
                answer = None
            # Memory can only be given back once the exception, which holds the pass's tensors, is gone.
            if answer is None:
                self._shrink(batch)
                continue
            yield batch, *answer
            waiting = waiting[count:]

    def _shrink(self, batch: Batch) -> None:
        if len(batch.tokens) == 1:
            raise OutOfMemoryError(
                f"one text of {batch.tokens.size} tokens does not fit {self.device}: use a smaller model, a shorter "
                "max_length or fewer shots"
            )
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.batch_tokens = min(self.batch_tokens, batch.tokens.size) // 2


def takes_forests(model: PreTrainedModel, longest: int) -> bool:
    """Whether `model` may read packed tries of texts of at most `longest` tokens."""
    config = model.config
    rotary = (getattr(config, "rope_parameters", None) or {}).get("rope_type")
    window = getattr(config, "sliding_window", None)
    return (
        config.model_type in PLAIN_ARCHITECTURES
        and config._attn_implementation in ("sdpa", "eager")
        and rotary in _FIXED_ROTARY
        and (window is None or longest <= window)
    )


def _pack(placed: list[Placed], row_nodes: int) -> list[list[Placed]]:
    """Rows of tries, longest first, each filled up to `row_nodes` (first fit in decreasing order)."""
    rows: list[list[Placed]] = []
    room: list[int] = []
    first_open = 0
    for item in sorted(placed, key=lambda p: -len(p.tree)):
        while first_open < len(rows) and room[first_open] <= 0:
            first_open += 1
        size = len(item.tree)
        for row in range(first_open, len(rows)):
            if size <= room[row]:
                rows[row].append(item)
                room[row] -= size
                break
        else:
            rows.append([item])
            room.append(row_nodes - size)
    return sorted(rows, key=lambda row: -_length(row))


def _plain_rows(placed: list[Placed]) -> list[list[Placed]]:
    single = [Placed(chain, item.slot + i) for item in placed for i, chain in enumerate(chains(item.tree))]
    return [[item] for item in sorted(single, key=lambda p: -len(p.tree))]


def _length(row: list[Placed]) -> int:
    return sum(len(item.tree) for item in row)


def _fitting(rows: list[list[Placed]], batch_tokens: int) -> int:
    # Rows come longest first, so the first one sets the width of the batch.
    return max(1, min(len(rows), batch_tokens // _length(rows[0])))


def _assemble(rows: list[list[Placed]]) -> Batch:
    width = _length(rows[0])
    tokens = np.zeros((len(rows), width), np.int64)
    depth = np.zeros((len(rows), width), np.int64)
    end = np.tile(np.arange(1, width + 1), (len(rows), 1))
    predicting, entry_row, entry_target, entry_slot = [], [], [], []
    seen = 0
    for index, row in enumerate(rows):
        start = 0
        for item in row:
            tree, stop = item.tree, start + len(item.tree)
            tokens[index, start:stop] = tree.tokens
            depth[index, start:stop] = tree.depth
            end[index, start:stop] = tree.end + start
            predicting.append(tree.rows + (index * width + start))
            entry_row.append(tree.entry_row + seen)
            entry_target.append(tree.entry_target)
            entry_slot.append(tree.entry_request + item.slot)
            seen, start = seen + len(tree.rows), stop
    return Batch(
        tokens,
        depth,
        end,
        predicting=_joined(predicting),
        entry_row=_joined(entry_row),
        entry_target=_joined(entry_target),
        entry_slot=_joined(entry_slot),
        causal=all(len(row) == 1 and row[0].tree.is_chain for row in rows),
    )


def _joined(parts: list[Tokens]) -> NDArray[np.int64]:
    return np.concatenate(parts).astype(np.int64)


@torch.no_grad()
def _forward(model: PreTrainedModel, batch: Batch, device: torch.device) -> tuple[Tensor, Tensor]:
    """(m,) float32 log-probability of each entry's token, and (m,) whether it is the most probable one."""
    tokens, predicting = _to(batch.tokens, device), _to(batch.predicting, device)
    if model.config.model_type in PLAIN_ARCHITECTURES:
        mask = None if batch.causal else _mask(_to(batch.end, device), model)
        places = _to(batch.depth, device)
        hidden = model.base_model(tokens, attention_mask=mask, position_ids=places, use_cache=False).last_hidden_state
        rows, head = hidden.flatten(0, 1)[predicting], model.get_output_embeddings()
    else:
        # Nobody promises that logits are a plain product here (soft caps, scales): the model's own are taken.
        rows, head = model(tokens, use_cache=False).logits.flatten(0, 1)[predicting], None
    return _score_rows(rows, head, batch, max(1, _LOGITS // model.config.vocab_size))


def _score_rows(rows: Tensor, head: torch.nn.Module | None, batch: Batch, step: int) -> tuple[Tensor, Tensor]:
    """Log-probabilities and greediness of the batch's entries, the logits of `step` rows at a time."""
    scores = torch.empty(len(batch.entry_row), dtype=torch.float32, device=rows.device)
    greedy = torch.empty(len(batch.entry_row), dtype=torch.bool, device=rows.device)
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        logits = (part if head is None else head(part)).float()
        # Chosen on the host: asking the device which entries these are would wait for all of its queue.
        here = np.nonzero(batch.entry_row // step == start // step)[0]
        mine, row = _to(here, rows.device), _to(batch.entry_row[here] - start, rows.device)
        token = _to(batch.entry_target[here], rows.device)
        scores[mine] = logits[row, token] - torch.logsumexp(logits, dim=-1)[row]
        greedy[mine] = logits.argmax(dim=-1)[row] == token
    return scores, greedy


def _mask(end: Tensor, model: PreTrainedModel) -> Tensor:
    """(rows, 1, length, length): node i sees node j exactly when j <= i < end[j]."""
    place = torch.arange(end.shape[1], device=end.device)
    sees = (place[None, None, :] <= place[None, :, None]) & (place[None, :, None] < end[:, None, :])
    if model.config._attn_implementation == "sdpa":
        return sees.unsqueeze(1)
    hidden = torch.zeros(sees.shape, dtype=model.dtype, device=end.device)
    return hidden.masked_fill_(~sees, torch.finfo(model.dtype).min).unsqueeze(1)


def _to(values: NDArray[np.int64], device: torch.device) -> Tensor:
    return torch.from_numpy(values).to(device)


def _sum_up(answers: list[tuple[Batch, Tensor, Tensor]], slots: NDArray[np.int64]) -> list[Likelihoods]:
    total = int(slots[-1])
    if not answers:
        return []
    slot = np.concatenate([batch.entry_slot for batch, _, _ in answers])
    scores = torch.cat([part for _, part, _ in answers]).cpu().numpy()
    wrong = ~torch.cat([part for _, _, part in answers]).cpu().numpy()
    # A request's entries stand together in text order, so equal requests sum to equal bits.
    sums = np.bincount(slot, weights=scores.astype(np.float64), minlength=total).astype(np.float64)
    greedy = np.bincount(slot, weights=wrong, minlength=total) == 0
    return [Likelihoods(sums[a:b], greedy[a:b]) for a, b in pairwise(slots)]
