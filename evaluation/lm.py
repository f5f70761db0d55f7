"""Our language model for lm-eval itself: the harness's whole run over the same fast reading as the scorer's."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from lm_eval.api.model import TemplateLM
from lm_eval.models.huggingface import HFLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from evaluation.encoding import Encoder, default_max_length, insists_on_bos
from evaluation.likelihood import LikelihoodReader, Packing
from evaluation.scorer import never
from evaluation.trees import TokenRequest, grow, shared_length

#: Requests in one trie at most: bounds how long planning takes.
_REQUESTS_PER_TREE = 64


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
    ) -> None:
        super().__init__()
        self._generated_together = generated_together
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
            TaskError: a continuation is empty or longer than `max_length`.
        """
        answers = self._read(self.encoder.requests([request.args for request in requests]))
        for request, answer in zip(requests, answers, strict=True):
            self.cache_hook.add_partial("loglikelihood", request.args, answer)
        return answers

    def _loglikelihood_tokens(self, requests: Sequence[Any], **_: Any) -> list[tuple[float, bool]]:
        return self._read([self.encoder.truncate(begin, end, str(pair)) for pair, begin, end in requests])

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihood in nats of each whole text, read in the harness's own windows of `max_length` tokens.

        The first window begins with the prefix token, each later one with the token before it, and every token is
        predicted once. A text without tokens has log-likelihood 0.
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
        found: list[str] = self._stock.generate_until(requests, disable_tqdm=disable_tqdm)
        return found

    @cached_property
    def _stock(self) -> HFLM:
        # It gives its tokenizer a padding token, which the encoder's tokenizer is not to have.
        return HFLM(
            self.model,
            tokenizer=copy.deepcopy(self.encoder.tokenizer),
            max_length=self.encoder.max_length,
            add_bos_token=self.encoder.add_bos,
            batch_size=self._generated_together,
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
        answers: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        trees = [grow([requests[index] for index in group]) for group in groups]
        for group, found in zip(groups, self.reader.read(self.model, trees, cancelled=never), strict=True):
            for index, total, greedy in zip(group, found.sums, found.greedy, strict=True):
                answers[index] = float(total), bool(greedy)
        return answers


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
