"""A small scorer for the nursery's items: the summed log-probability of each choice, read from the parquet files.

It exists to measure a family without the service and to check the benchmarks against lm-eval; a search scores with
lm-eval's own task code.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import LlamaForCausalLM

from examples.nursery.tasks import BENCHMARKS, Item
from examples.nursery.tokenizer import PAD_ID

BATCH = 256


@dataclass(frozen=True)
class Asked:
    """One item as a scorer sees it: (context, continuation) per choice, and the index of the right one."""

    choices: tuple[tuple[str, str], ...]
    right: int


def asked_arc(item: Item) -> Asked:
    """One context, a choice after it; the same for every choice."""
    context = f"Question: {item['question']}\nAnswer:"
    texts, labels = item["choices"]["text"], item["choices"]["label"]
    return Asked(tuple((context, f" {text}") for text in texts), labels.index(item["answerKey"]))


def asked_wino(item: Item) -> Asked:
    """The choice is in the context; what is scored is the common text after the blank."""
    before, after = item["sentence"].split("_")
    contexts = (before + item["option1"], before + item["option2"])
    return Asked(tuple((context, f" {after.strip()}") for context in contexts), int(item["answer"]) - 1)


def asked_hella(item: Item) -> Asked:
    """The story under its label, then an ending."""
    context = f"{item['activity_label']}: {item['ctx_a']} {item['ctx_b'].capitalize()}"
    return Asked(tuple((context, f" {ending}") for ending in item["endings"]), int(item["label"]))


ASKED = {"arc": asked_arc, "wino": asked_wino, "hella": asked_hella}


@dataclass(frozen=True)
class Exam:
    """The encoded requests of one task: rows of token ids, how long each context is, and the items they belong to."""

    asked: tuple[Asked, ...]
    rows: tuple[tuple[int, ...], ...]
    context_lengths: tuple[int, ...]

    @classmethod
    def read(cls, tasks: Path, skill: str, split: str, tokenizer: Tokenizer, limit: int | None = None) -> Exam:
        """The first ``limit`` items (all by default) of a split of the grown tasks."""
        items = pq.read_table(tasks / BENCHMARKS[skill].name / f"{split}.parquet").to_pylist()[:limit]
        asked = tuple(ASKED[skill](item) for item in items)
        choices = [choice for one in asked for choice in one.choices]
        contexts = tokenizer.encode_batch([context for context, _ in choices])
        wholes = tokenizer.encode_batch([context + continuation for context, continuation in choices])
        return cls(asked, tuple(tuple(whole.ids) for whole in wholes), tuple(len(context.ids) for context in contexts))

    def right(self, model: LlamaForCausalLM) -> tuple[bool, ...]:
        """Per item, whether the right choice has the highest summed log-probability."""
        scores = iter(self.log_likelihoods(model).tolist())
        picked = [[next(scores) for _ in one.choices] for one in self.asked]
        return tuple(sums.index(max(sums)) == one.right for sums, one in zip(picked, self.asked, strict=True))

    def accuracy(self, model: LlamaForCausalLM) -> float:
        """In percent."""
        right = self.right(model)
        return 100 * sum(right) / len(right)

    @torch.no_grad()
    def log_likelihoods(self, model: LlamaForCausalLM) -> Tensor:
        """(requests,) float32: the summed log-probability of each continuation given its context, in nats."""
        sums = torch.zeros(len(self.rows))
        for indices in self._batches():
            tokens = _padded([self.rows[index] for index in indices])
            log_probs = model(input_ids=tokens[:, :-1], use_cache=False).logits.log_softmax(-1)
            told = log_probs.gather(-1, tokens[:, 1:, None]).squeeze(-1)  # (rows, length - 1)
            starts = torch.tensor([self.context_lengths[index] for index in indices])[:, None]
            places = torch.arange(1, tokens.shape[1])[None]
            sums[indices] = told.masked_fill((places < starts) | (tokens[:, 1:] == PAD_ID), 0.0).sum(-1)
        return sums

    def _batches(self) -> Iterator[list[int]]:
        by_length = sorted(range(len(self.rows)), key=lambda index: len(self.rows[index]))
        for start in range(0, len(by_length), BATCH):
            yield by_length[start : start + BATCH]


def _padded(rows: Sequence[Sequence[int]]) -> Tensor:
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[PAD_ID] * (longest - len(row))] for row in rows])
