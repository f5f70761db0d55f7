"""How much arithmetic scoring needs: what the stock harness reads, and the least that gives the same answers.

Counted are the products of the linear layers and of attention, two operations per multiplication and addition, each
token attending to the tokens before it and to itself. Padding is nobody's need and is not counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.trees import TokenRequest, grow


@dataclass(frozen=True)
class Shape:
    """A decoder's sizes.

    Attributes:
        layers: of the stack.
        hidden, inner: width of the residual stream and of the gated MLP.
        heads, key_heads, head_size: of attention.
        vocabulary: rows of the output embedding.
    """

    layers: int
    hidden: int
    inner: int
    heads: int
    key_heads: int
    head_size: int
    vocabulary: int

    @classmethod
    def of(cls, config: Any) -> Shape:
        """The sizes in a Llama's configuration."""
        return cls(
            config.num_hidden_layers,
            config.hidden_size,
            config.intermediate_size,
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
            config.vocab_size,
        )

    @property
    def per_token(self) -> int:
        """Operations of all linear layers below the head, for one token."""
        queries, keys = self.heads * self.head_size, self.key_heads * self.head_size
        weights = self.hidden * (2 * queries + 2 * keys) + 3 * self.hidden * self.inner
        return 2 * self.layers * weights

    @property
    def per_pair(self) -> int:
        """Operations of attention for one token and one that it sees: a score, and a share of a value."""
        return 4 * self.layers * self.heads * self.head_size

    @property
    def per_row(self) -> int:
        """Operations of the head for one row."""
        return 2 * self.hidden * self.vocabulary

    def flops(self, depths: NDArray[np.integer[Any]], rows: int) -> float:
        """Operations for tokens at these places in their texts (from 0), `rows` of which go through the head."""
        pairs = int(depths.sum()) + len(depths)
        return float(self.per_token * len(depths) + self.per_pair * pairs + self.per_row * rows)


def stock_flops(shape: Shape, requests: Sequence[TokenRequest]) -> float:
    """What lm-eval's own model computes: every text that is read, each once, with the head on all of its tokens.

    Requests that read the same tokens (continuations that differ in their last token only) are read once there too.
    """
    texts = {request.read.tobytes(): len(request.read) for request in requests}
    return sum(shape.flops(np.arange(length), length) for length in texts.values())


def least_flops(shape: Shape, requests: Sequence[TokenRequest]) -> float:
    """What is needed: each beginning that any of the task's texts share once, the head where something is predicted."""
    tree = grow(requests)
    return shape.flops(tree.depth, len(tree.rows))
