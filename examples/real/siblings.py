"""Two siblings of a small real Llama: it is trained on, once on ARC's and once on Winogrande's train split.

Both start from the same weights, so they and the base fit together as fine-tunes of one base do. At this size scores
stay near chance; what this shows is stock tasks, real data and real checkpoints going all the way.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

Progress = Callable[[str, float], None]
DONE = "siblings.json"


@dataclass(frozen=True)
class Course:
    """How a sibling is trained: AdamW with a linear fall of the learning rate, on rows of at most `length` tokens."""

    steps: int = 160
    batch: int = 16
    length: int = 128
    rate: float = 1e-3
    seed: int = 7


def arc_texts(datasets: Path) -> list[str]:
    """ARC's training questions with their right answers, in the form of lm-eval's prompt."""
    rows = [
        row
        for name in ("arc_challenge", "arc_easy")
        if (datasets / name / "train.parquet").is_file()
        for row in pq.read_table(datasets / name / "train.parquet").to_pylist()
    ]
    return [f"Question: {row['question']}\nAnswer: {_right(row)}" for row in rows]


def winogrande_texts(datasets: Path, limit: int = 6000) -> list[str]:
    """Winogrande's training sentences with the blank filled as it should be."""
    rows = pq.read_table(datasets / "winogrande" / "train.parquet").slice(0, limit).to_pylist()
    return [row["sentence"].replace("_", row[f"option{row['answer']}"]) for row in rows]


def _right(row: dict[str, Any]) -> str:
    choices = row["choices"]
    return str(choices["text"][list(choices["label"]).index(row["answerKey"])])


def grow(
    base: Path, datasets: Path, out: Path, *, course: Course | None = None, progress: Progress | None = None
) -> Path:
    """Make `out/base`, `out/arc` and `out/wino`, or return at once if they are there.

    Args:
        base: a Llama checkpoint with float32 weights.
        datasets: a folder laid out `<name>/<split>.parquet`.
        out: where the three checkpoints go.
        course: how to train.
        progress: called with a stage's name and the share of it that is done.
    """
    course = course or Course()
    wanted = {"base": hashlib.sha256((base / "model.safetensors").read_bytes()).hexdigest(), "course": repr(course)}
    done = out / DONE
    if done.is_file() and json.loads(done.read_text()) == wanted:
        return out
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    shutil.copytree(base, out / "base")
    for name, texts in (("arc", arc_texts(datasets)), ("wino", winogrande_texts(datasets))):
        with _one_thread():
            _train(base, texts, out / name, course, lambda share, name=name: progress and progress(name, share))
    done.write_text(json.dumps(wanted))
    return out


@contextmanager
def _one_thread() -> Iterator[None]:
    """A model this small is slower on two threads than on one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _train(base: Path, texts: list[str], out: Path, course: Course, tell: Callable[[float], Any]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=course.rate, weight_decay=0.0)
    for step, (tokens, labels) in enumerate(_batches(texts, tokenizer, course)):
        for group in optimiser.param_groups:
            group["lr"] = course.rate * (1 - step / course.steps)
        loss = model(input_ids=tokens, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        tell((step + 1) / course.steps)
    model.eval().save_pretrained(out)
    for file in ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json"):
        if (base / file).is_file():
            shutil.copy2(base / file, out / file)


def _batches(
    texts: list[str], tokenizer: PreTrainedTokenizerBase, course: Course
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Seeded batches, right-padded; padding is not learnt from."""
    draw = random.Random(course.seed)
    for _ in range(course.steps):
        rows = [tokenizer(text)["input_ids"][: course.length] for text in draw.sample(texts, course.batch)]
        width = max(len(row) for row in rows)
        tokens = torch.tensor([row + [0] * (width - len(row)) for row in rows])
        labels = torch.tensor([row + [-100] * (width - len(row)) for row in rows])
        yield tokens, labels
