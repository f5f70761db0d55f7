"""Our language model for lm-eval itself: the harness's whole run over the same fast reading as the scorer's."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from lm_eval.api.model import TemplateLM
from lm_eval.models.huggingface import HFLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from core.errors import NonFiniteWeightsError, TaskError
from evaluation.encoding import Encoder, default_max_length, insists_on_bos
from evaluation.likelihood import LikelihoodReader, Packing
from evaluation.scorer import never
from evaluation.trees import TokenRequest, TokenTree, grow, shared_length

#: Requests in one trie at most: bounds how long planning takes.
_REQUESTS_PER_TREE = 64
#: Nodes of tries between two tellings of progress, by the kind of device: enough to fill rows and batches.
_NODES_BETWEEN_TELLINGS = {"cpu": 8192, "cuda": 262_144}
_PROMPTS_BETWEEN_TELLINGS = 4


def untold(done: int, total: int) -> None:
    """The default of `tell`: nobody wants to know."""


class HuarizoLM(TemplateLM):  # type: ignore[misc]
    """An `LM` for `lm_eval.simple_evaluate(HuarizoLM(model, tokenizer), tasks=...)`.

    Args:
        model: a causal language model.
        tokenizer: its tokenizer.
        max_length: tokens the model may read; None takes what lm-eval's own model would.
        add_bos: whether the tokenizer adds its special tokens.
        batch_tokens: tokens of one forward pass; None finds out what the device has room for.
        packing: how texts are put into rows; None takes what serves the device best.
        generated_together: prompts of one batch where answers are generated.
        tell: told from time to time how many requests of how many are answered.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_length: int | None = None,
        add_bos: bool = False,
        batch_tokens: int | None = None,
        packing: Packing | None = None,
        generated_together: int = 1,
        tell: Callable[[int, int], None] = untold,
    ) -> None:
        super().__init__()
        self.generated_together = generated_together
        self.tell = tell
        length = max_length or default_max_length(model.config, tokenizer)
        self.model = model
        self.encoder = Encoder(tokenizer, length, add_bos=add_bos or insists_on_bos(model.config))
        self.reader = LikelihoodReader(torch.device(model.device), batch_tokens, packing)

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        return int(self.encoder.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        """What stands for an empty context."""
        return self.encoder.prefix_token

    def tok_encode(self, string: str, **_: Any) -> list[int]:
        """Token ids of one text."""
        return self.encoder.encode([string])[0]

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """(log-likelihood, whether it is the greedy continuation) of each request, in order.

        Raises:
            TaskError: a continuation is empty or longer than `max_length`, or the model lacks a token.
            NonFiniteWeightsError: a log-likelihood is NaN or infinite.
        """
        answers = self._read(self.encoder.requests([request.args for request in requests]))
        for request, answer in zip(requests, answers, strict=True):
            self.cache_hook.add_partial("loglikelihood", request.args, answer)
        return answers

    def _loglikelihood_tokens(self, requests: Sequence[Any], **_: Any) -> list[tuple[float, bool]]:
        return self._read([self.encoder.truncate(begin, end, str(pair)) for pair, begin, end in requests])

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihood in nats of each whole text, over the harness's own windows: its number for the same text.

        With n tokens and L = `max_length`: the first window predicts the first min(L, n), after the prefix token alone.
        Each later one predicts the next r = min(L, tokens left), after the L + 1 - r tokens before them: one where the
        window is full, more in a shorter last one. Every token is predicted once; a text without tokens has
        log-likelihood 0.
        """
        windows = [self._windows(request.args[0]) for request in requests]
        answers = iter(self._read([window for part in windows for window in part]))
        return [sum((next(answers)[0] for _ in part), 0.0) for part in windows]

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """The text generated after each prompt, by lm-eval's own model over the same weights: not fast, but the same.

        Args:
            requests: prompts with their generation settings.
            disable_tqdm: whether to draw no progress bar.
        """
        found: list[str] = []
        # Batches of several prompts are cut from all of them, longest first, as the harness does.
        step = _PROMPTS_BETWEEN_TELLINGS if self.generated_together == 1 else max(1, len(requests))
        for start in range(0, len(requests), step):
            found += self._stock.generate_until(requests[start : start + step], disable_tqdm=disable_tqdm)
            self.tell(len(found), len(requests))
        return found

    @cached_property
    def _stock(self) -> HFLM:
        # It gives its tokenizer a padding token, which the encoder's tokenizer is not to have.
        return HFLM(
            self.model,
            tokenizer=copy.deepcopy(self.encoder.tokenizer),
            max_length=self.encoder.max_length,
            add_bos_token=self.encoder.add_bos,
            batch_size=self.generated_together,
        )

    def _windows(self, text: str) -> list[TokenRequest]:
        windows = get_rolling_token_windows(
            token_list=self.tok_encode(text),
            prefix_token=self.prefix_token_id,
            max_seq_len=self.encoder.max_length,
            context_len=1,
        )
        return [self.encoder.truncate(begin, end, text) for begin, end in map(make_disjoint_window, windows)]

    def _read(self, requests: list[TokenRequest]) -> list[tuple[float, bool]]:
        groups = _families(requests)
        trees = [grow([requests[index] for index in group]) for group in groups]
        self._check_tokens(trees)
        answers: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        told = 0
        for part in _parts(trees, _NODES_BETWEEN_TELLINGS.get(self.reader.device.type, 8192)):
            read = self.reader.read(self.model, trees[part], cancelled=never)
            for group, found in zip(groups[part], read, strict=True):
                if not np.isfinite(found.sums).all():
                    raise NonFiniteWeightsError(
                        f"log-likelihoods must be finite, but a request has {found.sums.tolist()!r}: the model's "
                        "weights overflow in this dtype; try float32"
                    )
                for index, total, greedy in zip(group, found.sums, found.greedy, strict=True):
                    answers[index] = float(total), bool(greedy)
                told += len(group)
            self.tell(told, len(requests))
        return answers

    def _check_tokens(self, trees: list[TokenTree]) -> None:
        vocabulary = self.model.get_input_embeddings().weight.shape[0]
        largest = max((int(max(tree.tokens.max(), tree.entry_target.max())) for tree in trees), default=0)
        if largest >= vocabulary:
            raise TaskError(
                f"the prompts hold token {largest} but the model's vocabulary has {vocabulary} entries: give the model "
                "its own tokenizer"
            )


def _parts(trees: list[TokenTree], nodes: int) -> Iterator[slice]:
    """Neighbouring tries, so many that they have at least `nodes` nodes."""
    start = held = 0
    for index, tree in enumerate(trees, 1):
        held += len(tree.tokens)
        if held >= nodes or index == len(trees):
            yield slice(start, index)
            start, held = index, 0


def _families(requests: list[TokenRequest]) -> list[list[int]]:
    """Indices of requests grouped so that neighbours in a group share at least half of the shorter text."""
    reads = [request.read.tolist() for request in requests]
    groups: list[list[int]] = []
    for index in sorted(range(len(requests)), key=reads.__getitem__):
        last = groups[-1][-1] if groups else index
        shared = shared_length(requests[last].read, requests[index].read)
        near = 2 * shared >= min(len(reads[last]), len(reads[index]))
        if groups and near and len(groups[-1]) < _REQUESTS_PER_TREE:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups
