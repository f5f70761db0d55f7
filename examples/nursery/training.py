"""Training of the nursery's models: rows of tokens in, the same weights out on every run of one machine."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from examples.nursery.tokenizer import BOS_ID, EOS_ID, MAX_LENGTH, PAD_ID

BETAS = (0.9, 0.98)
CLIP = 1.0
FLOOR = 0.05
SORTED_GROUP = 16
IGNORED = -100


@dataclass(frozen=True)
class Shape:
    """Sizes of the nursery's Llama; ``initializer_range`` .12 makes every layer matter (see README.md)."""

    vocabulary: int = 896
    hidden: int = 128
    layers: int = 6
    heads: int = 4
    mlp: int = 344
    initializer_range: float = 0.12


@dataclass(frozen=True)
class Course:
    """One training run: AdamW, linear warm-up, then linear decay to 5 % of ``rate``."""

    steps: int
    rate: float
    warm_up: int
    weight_decay: float = 0.0
    batch: int = 64

    @property
    def texts(self) -> int:
        return self.steps * self.batch

    def rate_at(self, step: int) -> float:
        if step < self.warm_up:
            return self.rate * (step + 1) / self.warm_up
        remaining = (self.steps - step) / max(1, self.steps - self.warm_up)
        return self.rate * (FLOOR + (1 - FLOOR) * remaining)


@contextmanager
def reproducible(seed: int, threads: int) -> Iterator[None]:
    """Deterministic kernels and a seeded generator inside, the caller's own settings after.

    The number of threads is part of the result: the order of a sum, and so its last bits, follow it.
    """
    threads_before, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.use_deterministic_algorithms(strict)
        torch.set_num_threads(threads_before)


def new_model(shape: Shape) -> LlamaForCausalLM:
    """A freshly initialised Llama with an untied head; draws from torch's current generator."""
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.mlp,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=MAX_LENGTH,
        initializer_range=shape.initializer_range,
        tie_word_embeddings=False,
        pad_token_id=PAD_ID,
        bos_token_id=BOS_ID,
        eos_token_id=EOS_ID,
        dtype="float32",
    )
    return LlamaForCausalLM(config)


def batches(tokenizer: Tokenizer, texts: Sequence[str], size: int, rng: random.Random) -> Iterator[Tensor]:
    """Rows of near-equal length, (size, longest) int64: sorted inside groups of 16 batches, which come shuffled."""
    for start in range(0, len(texts), size * SORTED_GROUP):
        group = texts[start : start + size * SORTED_GROUP]
        rows = sorted(([*encoding.ids, EOS_ID] for encoding in tokenizer.encode_batch(list(group))), key=len)
        parts = [rows[first : first + size] for first in range(0, len(rows), size)]
        rng.shuffle(parts)
        yield from map(_padded, parts)


def _padded(rows: Sequence[Sequence[int]]) -> Tensor:
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[PAD_ID] * (longest - len(row))] for row in rows])


def train(
    model: LlamaForCausalLM, course: Course, rows: Iterator[Tensor], report: Callable[[float], None] = lambda _: None
) -> float:
    """Train in place on ``course.steps`` batches; reports the fraction done, returns the last loss (nats per token)."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=course.rate, betas=BETAS, weight_decay=course.weight_decay)
    model.train()
    loss = torch.tensor(float("nan"))
    for step, batch in zip(range(course.steps), rows, strict=True):
        optimizer.param_groups[0]["lr"] = course.rate_at(step)
        loss = token_loss(model, batch)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        report((step + 1) / course.steps)
    model.eval()
    return float(loss.detach())


def token_loss(model: LlamaForCausalLM, batch: Tensor) -> Tensor:
    """Mean loss over all real tokens of (rows, length); rows are padded right, so no attention mask is needed."""
    logits = model(input_ids=batch[:, :-1], use_cache=False).logits
    targets = batch[:, 1:].masked_fill(batch[:, 1:] == PAD_ID, IGNORED)
    return functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)
