"""From prompt and continuation to tokens, exactly as lm-eval's Hugging Face model does it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import CONFIG_MAPPING, PreTrainedTokenizerBase

from core.errors import TaskError
from evaluation.trees import TokenRequest

#: What lm-eval takes where neither configuration nor tokenizer names a length.
_DEFAULT_MAX_LENGTH = 2048
#: What transformers says where a tokenizer knows no limit.
_NO_LIMIT = int(1e30)
_LENGTH_ATTRIBUTES = ("n_positions", "max_position_embeddings", "n_ctx")

logger = logging.getLogger(__name__)


class Encoder:
    """Encodes requests with one tokenizer.

    Args:
        tokenizer: the model's tokenizer.
        max_length: tokens the model may read; longer requests lose tokens on the left.
        add_bos: whether the tokenizer adds its special tokens (lm-eval's `add_bos_token`).
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int, *, add_bos: bool = False) -> None:
        self.tokenizer, self.max_length, self.add_bos = tokenizer, max_length, add_bos

    @property
    def prefix_token(self) -> int:
        """What an empty context becomes: the beginning-of-text token, else the end-of-text token.

        Raises:
            TaskError: the tokenizer has neither.
        """
        for token in (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id):
            if isinstance(token, int):
                return token
        raise TaskError("an empty prompt needs a bos or eos token, but the tokenizer has neither: give it one")

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text."""
        if not texts:
            return []
        encoded = self.tokenizer(list(texts), add_special_tokens=self.add_bos, verbose=False)["input_ids"]
        return [list(ids) for ids in encoded]

    def requests(self, pairs: Sequence[tuple[str, str]]) -> list[TokenRequest]:
        """Token requests of (context, continuation) pairs. Blanks that end a context move to the continuation.

        Raises:
            TaskError: a continuation has no token of its own, or more than `max_length`.
        """
        moved = [_move_blanks(context, continuation) for context, continuation in pairs]
        texts = list(dict.fromkeys(text for begin, whole in moved for text in (begin, whole) if text is not None))
        ids = dict(zip(texts, self.encode(texts), strict=True))
        return [self._request(ids, begin, whole) for begin, whole in moved]

    def _request(self, ids: dict[str, list[int]], begin: str | None, whole: str) -> TokenRequest:
        context = [] if begin is None else ids[begin]
        return self.truncate(context or [self.prefix_token], ids[whole][len(context) :], whole)

    def truncate(self, context: Sequence[int], continuation: Sequence[int], text: str = "") -> TokenRequest:
        """The request for tokens already encoded; `text` is named in errors.

        Raises:
            TaskError: the continuation is empty or longer than `max_length`.
        """
        if not 0 < len(continuation) <= self.max_length:
            raise TaskError(
                f"a continuation must have 1 to {self.max_length} tokens, but {text!r} has {len(continuation)}: "
                "correct the task's data, or allow a longer max_length"
            )
        read = [*context, *continuation][-(self.max_length + 1) :][:-1]
        return TokenRequest(np.array(read, np.int32), np.array(continuation, np.int32))


def default_max_length(config: Any, tokenizer: PreTrainedTokenizerBase) -> int:
    """The length lm-eval would take: the model configuration's, else the tokenizer's, else 2048.

    Of the configuration, the first of `n_positions`, `max_position_embeddings` and `n_ctx` that it has. lm-eval asks
    the object, which has its class's default where the file names none (see `with_defaults`). A tokenizer's
    `model_max_length` counts for configurations that have none of the three.

    Args:
        config: the model's configuration as an object or a mapping; None where there is none.
        tokenizer: the model's tokenizer.
    """
    known = int(tokenizer.model_max_length)
    return config_length(config) or (known if known != _NO_LIMIT else _DEFAULT_MAX_LENGTH)


def config_length(config: Any) -> int | None:
    """The length that a configuration names, as lm-eval reads it; None where it names none."""
    values = (
        config.get(name) if isinstance(config, dict) else getattr(config, name, None) for name in _LENGTH_ATTRIBUTES
    )
    return next((int(value) for value in values if value), None)


def with_defaults(config: dict[str, Any]) -> Any:
    """A `config.json` as the object that transformers makes of it; as it is where that knows no such model."""
    kind = config.get("model_type")
    try:
        return CONFIG_MAPPING[kind].from_dict(config) if kind in CONFIG_MAPPING else config
    except Exception as error:
        # Whatever a model's own configuration class finds wrong, it says where the model itself is read.
        logger.warning("a model's configuration is taken as it is written: %s", error)
        return config


def insists_on_bos(config: Any) -> bool:
    """Whether lm-eval adds the tokenizer's special tokens to this model's prompts unasked: for the first Gemma only."""
    return (config.get("model_type") if isinstance(config, dict) else config.model_type) == "gemma"


def _move_blanks(context: str, continuation: str) -> tuple[str | None, str]:
    """The context that is encoded alone (None if there is none at all) and the whole text."""
    return (context.rstrip() if context else None), context + continuation
