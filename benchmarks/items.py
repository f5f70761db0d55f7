"""Benchmark documents of the official sizes: invented sentences in the columns and lengths of the real data sets.

Nothing here is a real question. What a scorer's speed depends on is kept: how many documents there are, how long
prompts and choices are in tokens, that Winogrande's sentences come in twins, and how large the example pools are.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

#: Documents that are scored, and examples to draw from.
OFFICIAL = {
    "arc_challenge": ("test", 1172, 1119),
    "arc_easy": ("test", 2376, 2251),
    "hellaswag": ("validation", 10042, 39905),
    "winogrande": ("validation", 1267, 40398),
}
SHOTS = {"arc_challenge": 25, "arc_easy": 25, "hellaswag": 10, "winogrande": 5}
_ONSETS = [
    "b",
    "br",
    "ch",
    "d",
    "f",
    "g",
    "gr",
    "h",
    "k",
    "l",
    "m",
    "n",
    "p",
    "pr",
    "r",
    "s",
    "sh",
    "st",
    "t",
    "tr",
    "w",
]
_RIMES = ["a", "al", "an", "ar", "e", "el", "en", "er", "i", "in", "ing", "is", "o", "on", "or", "u", "um", "y"]


class Writer:
    """Invents text whose words are as unevenly frequent as those of a language."""

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)
        syllables = [onset + rime for onset in _ONSETS for rime in _RIMES]
        self._words = [
            "".join(self._draw.choices(syllables, k=self._draw.choice([1, 1, 2, 2, 3]))) for _ in range(6000)
        ]
        self._weights = list(accumulate(1.0 / (rank + 3) for rank in range(len(self._words))))

    def words(self, low: int, high: int) -> str:
        """Between `low` and `high` words."""
        return " ".join(self._draw.choices(self._words, cum_weights=self._weights, k=self._draw.randint(low, high)))

    def sentence(self, low: int, high: int) -> str:
        """As `words`, with a capital and a full stop."""
        return self.words(low, high).capitalize() + "."

    def arc(self, low: int, high: int) -> dict[str, Any]:
        """One ARC row; the question has between `low` and `high` words."""
        labels = self._draw.choice(["ABCD", "ABCD", "ABCD", "1234"])
        texts = [self.words(1, 9) for _ in labels]
        return {
            "id": f"q{self._draw.random()}",
            "question": self.sentence(low, high)[:-1] + "?",
            "choices": {"text": texts, "label": list(labels)},
            "answerKey": self._draw.choice(labels),
        }

    def hellaswag(self) -> dict[str, Any]:
        """One HellaSwag row: a third short (captions), the others long (how-to texts)."""
        long = self._draw.random() > 0.32
        begin = self.sentence(30, 70) if long else self.sentence(8, 24)
        endings = [self.sentence(18, 40) if long else self.sentence(6, 20) for _ in range(4)]
        row: dict[str, Any] = {"ind": 0, "activity_label": self.words(1, 3), "ctx_a": begin, "ctx_b": self.words(1, 3)}
        row |= {"ctx": f"{row['ctx_a']} {row['ctx_b']}", "endings": endings, "label": self._draw.choice("0123")}
        return row | {"source_id": "", "split": "val", "split_type": "indomain"}

    def winogrande(self) -> list[dict[str, Any]]:
        """Two twins, which differ in what follows the blank and in the answer; or one that lost its twin, as most."""
        one, other = self.words(1, 2), self.words(1, 2)
        before, after, join = self.sentence(4, 7)[:-1], self.words(2, 4), self._draw.choice(["because", "so", "but"])
        rows = [{"sentence": f"{before} {one} {after} {other} {join} the _ was {self.words(2, 7)}."} for _ in range(2)]
        both = [row | {"option1": one, "option2": other, "answer": str(n + 1)} for n, row in enumerate(rows)]
        return both if self._draw.random() < 0.35 else [self._draw.choice(both)]


def write_items(folder: Path, share: float = 1.0, seed: int = 0, *, most: int | None = None) -> Path:
    """Write all four data sets as `<folder>/<task>/<split>.parquet`, a share of their documents, or the `most`."""
    for number, (task, (split, documents, examples)) in enumerate(OFFICIAL.items()):
        writer = Writer(seed + number)
        for name, count in ((split, documents), ("train", examples), ("validation", 8)):
            file = folder / task / f"{name}.parquet"
            if name == "validation" and split == "validation" and count == 8:
                continue
            file.parent.mkdir(parents=True, exist_ok=True)
            wanted = max(64, round(share * count))
            rows = _rows(writer, task, wanted if most is None else min(wanted, most))
            pq.write_table(pa.Table.from_pylist(rows), file)
    return folder


def train_tokenizer(datasets: Path, folder: Path, vocabulary: int = 8192) -> PreTrainedTokenizerFast:
    """A byte-level BPE over the documents of a folder, saved in `folder`."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(_texts(datasets), trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>")
    tokenizer.save_pretrained(folder)
    return tokenizer


def _rows(writer: Writer, task: str, count: int) -> list[dict[str, Any]]:
    if task == "winogrande":
        return [row for _ in range(count) for row in writer.winogrande()][:count]
    make: Callable[[], dict[str, Any]] = {
        "arc_challenge": lambda: writer.arc(12, 34),
        "arc_easy": lambda: writer.arc(8, 26),
        "hellaswag": writer.hellaswag,
    }[task]
    return [make() for _ in range(count)]


def _texts(datasets: Path) -> list[str]:
    found = []
    for file in sorted(datasets.rglob("*.parquet")):
        for row in pq.read_table(file).slice(0, 3000).to_pylist():
            found += [value for value in row.values() if isinstance(value, str)]
    return found
