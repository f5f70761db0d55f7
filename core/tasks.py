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
        kin: per document four hexadecimal digits, a hash of what it has in common with those that give it away; empty
            where nobody looked.
        mean_characters: mean length of a prompt with one choice; mean_choices: mean number of choices (for estimates).
    """

    name: str
    version: str
    content_digest: str
    documents: Annotated[int, Field(ge=1)]
    search: str
    metrics: tuple[str, ...]
    has_fewshot: bool
    kin: str = ""
    mean_characters: float = 0.0
    mean_choices: float = 0.0

    def side(self, side: Side) -> tuple[int, ...]:
        """Canonical numbers on one side, ascending."""
        search = set(bits(bytes.fromhex(self.search)))
        return tuple(n for n in range(self.documents) if (n in search) == (side == "search"))


def normalise(text: str) -> str:
    """Lower-cased letters and digits (of any script) only, so that twins and repeated contexts collide."""
    return re.sub(r"[\W_]+", " ", text.lower()).strip()


def kin_of(text: str) -> str:
    """Four hexadecimal digits, equal for documents whose texts collide; independent of the side."""
    return hashlib.sha256(f"kin:{normalise(text)}".encode()).hexdigest()[:4]


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
        final_split: share of the held-out side that is kept back; at least one item of two stays on either side, and
            documents that give each other away (Winogrande twins, repeated contexts) stay together.
    """
    if part == "search":
        return content.side("search")
    heldout = content.side("heldout")
    final: set[int] = set()
    if final_split > 0:
        kept = max(round(final_split * len(heldout)), 1)
        for group in _shuffled_kin(content, heldout):
            fits = not final or len(final) + len(group) <= kept
            if not fits or len(final) + len(group) == len(heldout):
                break
            final.update(group)
    return tuple(n for n in heldout if (n in final) == (part == "final"))


def _shuffled_kin(content: TaskContent, numbers: Sequence[int]) -> list[list[int]]:
    """Documents that give each other away, together, in an order that depends on the documents alone."""
    groups: dict[str, list[int]] = {}
    for number in numbers:
        groups.setdefault(content.kin[4 * number : 4 * number + 4] or str(number), []).append(number)

    def rank(key: str) -> bytes:
        return hashlib.sha256(f"final:{content.content_digest}:{key}".encode()).digest()

    return [groups[key] for key in sorted(groups, key=rank)]


def order(seed: int, task_digest: str, numbers: Sequence[int]) -> tuple[int, ...]:
    """The study's one order of a task's items (a seeded shuffle; file order is never used).

    Tasks are stratified by construction: a rung of k items takes the first k of every task.
    """

    def rank(number: int) -> bytes:
        return hashlib.sha256(f"order:{seed}:{task_digest}:{number}".encode()).digest()

    return tuple(sorted(numbers, key=rank))
