"""An evaluation task as data: its documents, their canonical numbers and on which side of the split each lies."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from core.noun import Noun
from core.outcomes import bits

Side = Literal["search", "heldout"]


class TaskContent(Noun):
    """What `inspect_task` finds out once per task content.

    Attributes:
        name: lm-eval's task name.
        version: the harness's task version.
        content_digest: sha256 over the documents and the configuration that shapes prompts and metrics.
        documents: how many canonical documents there are; numbers run from 0.
        search: bitmap (hex) of the search side; every other document is held out.
        metrics: the metrics the task can report among `acc` and `acc_norm`.
        has_fewshot: whether few-shot examples can be drawn.
        mean_characters: mean length of a prompt with one choice; mean_choices: mean number of choices (for estimates).
    """

    name: str
    version: str
    content_digest: str
    documents: Annotated[int, Field(ge=1)]
    search: str
    metrics: tuple[str, ...]
    has_fewshot: bool
    mean_characters: float = 0.0
    mean_choices: float = 0.0

    def side(self, side: Side) -> tuple[int, ...]:
        """Canonical numbers on one side, ascending."""
        search = set(bits(bytes.fromhex(self.search)))
        return tuple(n for n in range(self.documents) if (n in search) == (side == "search"))


def normalise(text: str) -> str:
    """Lower-cased letters and digits (of any script) only, so that twins and repeated contexts collide."""
    return re.sub(r"[\W_]+", " ", text.lower()).strip()


def side_of(text: str) -> Side:
    """The side of the default split: a hash of the normalised text, halved."""
    first = hashlib.sha256(normalise(text).encode()).digest()[0]
    return "search" if first < 128 else "heldout"


def order(seed: int, task_digest: str, numbers: Sequence[int]) -> tuple[int, ...]:
    """The study's one order of a task's items (a seeded shuffle; file order is never used).

    Tasks are stratified by construction: a rung of k items takes the first k of every task.
    """

    def rank(number: int) -> bytes:
        return hashlib.sha256(f"order:{seed}:{task_digest}:{number}".encode()).digest()

    return tuple(sorted(numbers, key=rank))
