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


#: What an item is for: found by (search), proved on (held-out), or kept back for one last look.
Part = Literal["search", "heldout", "final"]


def part_of(content: TaskContent, part: Part, final_split: float) -> tuple[int, ...]:
    """Canonical numbers of one part, ascending: the held-out side is split in two where some of it is kept back.

    Which items are kept back depends on the documents alone, so that all jobs that keep back a share keep the same.

    Args:
        content: the task.
        part: which.
        final_split: share of the held-out side that is kept back; at least one item of two stays on either side.
    """
    if part == "search":
        return content.side("search")
    heldout = content.side("heldout")
    shuffled = sorted(heldout, key=lambda n: hashlib.sha256(f"final:{content.content_digest}:{n}".encode()).digest())
    kept = min(max(round(final_split * len(heldout)), 1), len(heldout) - 1) if final_split > 0 else 0
    final = set(shuffled[:kept])
    return tuple(n for n in heldout if (n in final) == (part == "final"))


def order(seed: int, task_digest: str, numbers: Sequence[int]) -> tuple[int, ...]:
    """The study's one order of a task's items (a seeded shuffle; file order is never used).

    Tasks are stratified by construction: a rung of k items takes the first k of every task.
    """

    def rank(number: int) -> bytes:
        return hashlib.sha256(f"order:{seed}:{task_digest}:{number}".encode()).digest()

    return tuple(sorted(numbers, key=rank))
