"""Log-likelihoods of token tries under a causal language model.

Tries are packed several to a row under a mask that lets each node see its ancestors only, so that what a document's
choices share is read once. A long beginning is read without any mask, and then what stands on it, over the keys and
values it left. Where the architecture does not allow such masks, each text is a plain row. The output embedding is
applied only where a continuation token is predicted, and its log-softmax is taken in float32.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from core.errors import CancelledError, OutOfMemoryError
from evaluation.architectures import (
    Masks,
    caches_layers_apart,
    forget_lengths,
    hidden_states,
    known,
    logits,
    refusal,
    tree_masks,
)
from evaluation.budget import LOGITS, affordable_tokens
from evaluation.packing import (
    Batch,
    Placed,
    Row,
    Stem,
    assemble,
    find_stems,
    fitting,
    pack,
    place,
    plain_rows,
    rows_by_length,
    smaller_rows,
)
from evaluation.reuse import Stack, reading_name
from evaluation.trees import Tokens, TokenTree
from evaluation.trunks import Trunk, Trunks, cut

#: Nodes that rows are filled up to; longer tries get a row of their own. Fuller rows mean less padding in large batches
#: and more beginnings read once for several documents, but more attention to what a mask hides.
ROW_NODES = {"cpu": 128, "cuda": 512}
#: The same over a stem, where one row is one pass: enough nodes for the matrix products, few enough for attention.
CROWN_NODES = {"cpu": 256, "cuda": 2048}
#: Tokens from which one document's trunk is worth a pass of its own; on a GPU, many documents in one pass are.
LONE_TRUNK = {"cpu": 640, "cuda": None}

#: How libraries that allocate for themselves, and the host, say that there is no memory left.
_NO_MEMORY = (
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDA out of memory",
    "CUDA error: out of memory",
    "HIP out of memory",
    "can't allocate memory",
)

logger = logging.getLogger(__name__)

NO_TOKENS: Tokens = np.empty(0, np.int32)
Answer = tuple[Batch, Tensor, Tensor]
T = TypeVar("T")


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
class Packing:
    """How tries are put into rows.

    Attributes:
        row_nodes: nodes that rows are filled up to; 0 gives every document its own row.
        crown_nodes: the same for rows over a stem.
        lone_trunk: tokens from which one document's trunk is read as a stem; None for never.
    """

    row_nodes: int
    crown_nodes: int
    lone_trunk: int | None

    @classmethod
    def on(cls, device: torch.device) -> Packing:
        """What serves a device best."""
        kind = device.type if device.type in ROW_NODES else "cpu"
        return cls(ROW_NODES[kind], CROWN_NODES[kind], LONE_TRUNK[kind])


@dataclass(frozen=True)
class Body:
    """A model, and what is known of its lower layers."""

    model: PreTrainedModel
    stack: Stack | None

    def read(
        self,
        name: Callable[[], str],
        tokens: Tensor,
        masks: Masks | None = None,
        places: Tensor | None = None,
        cache: DynamicCache | None = None,
        *,
        whole: bool = False,
    ) -> Tensor:
        """The last hidden states, as `evaluation.architectures.hidden_states`.

        Args:
            name: names the pass.
            tokens, masks, places, cache: as there.
            whole: read every layer, known or not.
        """
        forward = partial(hidden_states, self.model, tokens, masks, places, cache)
        return forward() if self.stack is None else self.stack.read(name(), forward, whole=whole)

    def height(self, name: str) -> int:
        """The layer at which a pass would begin."""
        return 0 if self.stack is None else self.stack.height(name)


class LikelihoodReader:
    """Computes log-likelihoods within a memory budget that it lowers when the device runs out.

    Args:
        device: where the model is.
        batch_tokens: tokens of one forward pass at most (a longer text gets its own pass); None finds out, once, what
            the device has room for.
        packing: how tries are put into rows; None takes what serves the device best.
    """

    def __init__(self, device: torch.device, batch_tokens: int | None = None, packing: Packing | None = None) -> None:
        self.device = device
        self.batch_tokens = batch_tokens
        self.packing = packing or Packing.on(device)
        self._said: set[str] = set()

    def read(
        self,
        model: PreTrainedModel,
        trees: Sequence[TokenTree],
        *,
        cancelled: Callable[[], bool],
        stack: Stack | None = None,
        trunks: Trunks | None = None,
    ) -> list[Likelihoods]:
        """The log-likelihoods of every request of every trie, in order.

        Args:
            model: a causal language model.
            trees: what to read.
            cancelled: asked between batches.
            stack: the model over the hidden states of earlier ones; None reads every layer.
            trunks: what was kept of this candidate's earlier tries of the same task.

        Raises:
            CancelledError: `cancelled()` said so between two batches.
            OutOfMemoryError: not even one row fits the device.
        """
        model.eval()
        placed = place(trees)
        if not placed:
            return []
        work = self._work(Body(model, stack), placed, cancelled, trunks or Trunks())
        return _sum_up(list(work), np.cumsum([0, *(tree.requests for tree in trees)]))

    def _work(
        self, body: Body, placed: list[Placed], cancelled: Callable[[], bool], trunks: Trunks
    ) -> Iterator[Answer]:
        model = body.model
        longest = max(int(item.tree.depth.max()) + 1 for item in placed)
        refused = refusal(model, longest)
        if refused is not None:
            self._say(f"{model.config.model_type}: each text is read by itself, because {refused.reason}")
            if refused.by_length:
                forget_lengths(model)
            rows = rows_by_length(placed) if refused.by_length else plain_rows(placed)
            yield from self._read_rows(body, rows, longest, cancelled, by_length=refused.by_length)
            return
        stems, rest = self._stems(model, placed)
        for stem in stems:
            yield from self._read_stem(body, *trunks.fitted(stem), longest, cancelled, trunks)
        yield from self._read_rows(body, pack(rest, self.packing.row_nodes), longest, cancelled)

    def _stems(self, model: PreTrainedModel, placed: list[Placed]) -> tuple[list[Stem], list[Placed]]:
        stems, rest = find_stems(placed, self.packing.lone_trunk)
        if stems and not caches_layers_apart(model):
            self._say("layers share one layer_idx, so nothing is cached: long beginnings are read with each document")
            return [], placed
        return stems, rest

    def _say(self, what: str) -> None:
        if what not in self._said:
            self._said.add(what)
            logger.warning(what)

    def _read_rows(
        self,
        body: Body,
        rows: list[Row],
        longest: int,
        cancelled: Callable[[], bool],
        *,
        by_length: bool = False,
    ) -> Iterator[Answer]:
        while rows:
            _stop_if(cancelled)
            count = fitting(rows, self._budget(body.model, len(rows[0])), by_length=by_length)
            batch = assemble(rows[:count])
            answer = _unless_memory_runs_out(partial(_read_batch, body, batch, longest))
            if answer is not None:
                yield batch, *answer
                rows = rows[count:]
            elif len(rows[0].items) == 1 and count == 1:
                raise _too_long(batch.tokens.size, self.device)
            else:
                rows = smaller_rows(rows, self._lower(batch))

    def _budget(self, model: PreTrainedModel, widest: int) -> int:
        if self.batch_tokens is None:
            self.batch_tokens = affordable_tokens(model, self.device, widest)
        return self.batch_tokens

    def _lower(self, batch: Batch) -> int:
        self.batch_tokens = min(self.batch_tokens or batch.tokens.size, batch.tokens.size) // 2
        return self.batch_tokens

    def _read_stem(
        self,
        body: Body,
        stem: Stem,
        trunk: Trunk | None,
        longest: int,
        cancelled: Callable[[], bool],
        trunks: Trunks,
    ) -> Iterator[Answer]:
        _stop_if(cancelled)
        trunk = trunk or self._read_trunk(body, stem)
        waiting = stem.crown
        while waiting:
            _stop_if(cancelled)
            row, *others = pack(waiting, min(self.packing.crown_nodes, self._budget(body.model, longest)))
            batch = assemble([row])
            if body.height(_name(batch, stem.tokens)) < trunk.begun:
                trunk = self._read_trunk(body, stem, whole=True)
            answer = _unless_memory_runs_out(partial(_read_batch, body, batch, longest, trunk.cache, stem.tokens))
            cut(trunk.cache, len(stem.tokens))
            if answer is not None:
                yield batch, *answer
                waiting = [item for other in others for item in other.items]
            elif len(row.items) == 1:
                raise _too_long(len(stem.tokens) + batch.tokens.size, self.device)
            else:
                self._lower(batch)
        trunks.keep(stem, trunk)

    def _read_trunk(self, body: Body, stem: Stem, *, whole: bool = False) -> Trunk:
        # Layers below this one will have no keys and values of the trunk in the cache.
        begun = 0 if whole else body.height(reading_name(stem.tokens))
        cache, tokens = DynamicCache(), _to(stem.tokens.astype(np.int64), self.device).unsqueeze(0)
        name = partial(reading_name, stem.tokens)
        if _unless_memory_runs_out(partial(body.read, name, tokens, cache=cache, whole=whole)) is None:
            raise _too_long(len(stem.tokens), self.device)
        return Trunk(stem.tokens, cache, begun)


def _stop_if(cancelled: Callable[[], bool]) -> None:
    if cancelled():
        raise CancelledError("scoring was cancelled: nothing of this block is kept")


def _unless_memory_runs_out(read: Callable[[], T]) -> T | None:
    try:
        return read()
    except RuntimeError as error:
        if not _lacks_memory(error):
            raise
    # Memory can only be given back once the exception, which holds the pass's tensors, is gone.
    torch.cuda.empty_cache()
    return None


def _lacks_memory(error: RuntimeError) -> bool:
    """Whether an error is a failed allocation, of whichever library below torch."""
    return isinstance(error, torch.OutOfMemoryError) or any(sign in str(error) for sign in _NO_MEMORY)


def _too_long(tokens: int, device: torch.device) -> OutOfMemoryError:
    return OutOfMemoryError(
        f"one text of {tokens} tokens does not fit {device}: use a smaller model, a shorter max_length or fewer shots"
    )


@torch.no_grad()
def _read_batch(
    body: Body, batch: Batch, longest: int, cache: DynamicCache | None = None, trunk: Tokens = NO_TOKENS
) -> tuple[Tensor, Tensor]:
    """(m,) float32 log-probability of each entry's token, and (m,) whether it is the most probable one."""
    model, device = body.model, body.model.device
    tokens, predicting = _to(batch.tokens, device), _to(batch.predicting, device)
    if not known(model):
        # Nobody promises that logits are a plain product here (scales, say): the model's own are taken.
        rows = model(tokens, use_cache=False).logits.flatten(0, 1)[predicting]
        return _score_rows(rows, Tensor.float, batch, model.config.get_text_config().vocab_size)
    masks = places = None
    if len(trunk) or not batch.causal:
        places = _to(batch.depth, device)
        masks = tree_masks(model, _to(batch.end, device), places, longest, len(trunk))
    hidden = body.read(partial(_name, batch, trunk), tokens, masks, places, cache)
    head = partial(logits, model)
    return _score_rows(hidden.flatten(0, 1)[predicting], head, batch, model.config.vocab_size)


def _name(batch: Batch, trunk: Tokens) -> str:
    return reading_name(trunk, batch.tokens, batch.depth, batch.end)


def _score_rows(rows: Tensor, head: Callable[[Tensor], Tensor], batch: Batch, vocabulary: int) -> tuple[Tensor, Tensor]:
    """Log-probabilities and greediness of the batch's entries, the logits of some rows at a time."""
    step = max(1, LOGITS // vocabulary)
    scores = torch.empty(len(batch.entry_row), dtype=torch.float32, device=rows.device)
    greedy = torch.empty(len(batch.entry_row), dtype=torch.bool, device=rows.device)
    for start in range(0, len(rows), step):
        found = head(rows[start : start + step])
        # Chosen on the host: asking the device which entries these are would wait for all of its queue.
        here = np.nonzero(batch.entry_row // step == start // step)[0]
        mine, row = _to(here, rows.device), _to(batch.entry_row[here] - start, rows.device)
        token = _to(batch.entry_target[here], rows.device)
        greedy[mine] = _most_probable(found, row, token)
        # On a CPU this is one pass over the logits, and logsumexp is several, five times as long.
        scores[mine] = torch.log_softmax(found, dim=-1)[row, token]
    return scores, greedy


def _most_probable(logits: Tensor, row: Tensor, token: Tensor) -> Tensor:
    """Whether each token is the most probable one of its row, the first of them where several are."""
    if logits.device.type != "cpu":
        return logits.argmax(dim=-1)[row] == token
    # Finding where the greatest logit stands costs ten times as much as finding it, and is seldom needed.
    best = logits[row, token] == logits.amax(dim=-1)[row]
    places = best.nonzero()[:, 0]
    best[places] = logits[row[places]].argmax(dim=-1) == token[places]
    return best


def _to(values: NDArray[np.int64], device: torch.device) -> Tensor:
    return torch.from_numpy(values).to(device)


def _sum_up(answers: list[Answer], slots: NDArray[np.int64]) -> list[Likelihoods]:
    total = int(slots[-1])
    slot = np.concatenate([batch.entry_slot for batch, _, _ in answers])
    scores = torch.cat([part for _, part, _ in answers]).cpu().numpy()
    wrong = ~torch.cat([part for _, _, part in answers]).cpu().numpy()
    # A request's entries stand together in text order, so equal requests sum to equal bits.
    sums = np.bincount(slot, weights=scores.astype(np.float64), minlength=total).astype(np.float64)
    greedy = np.bincount(slot, weights=wrong, minlength=total) == 0
    return [Likelihoods(sums[a:b], greedy[a:b]) for a, b in pairwise(slots)]
