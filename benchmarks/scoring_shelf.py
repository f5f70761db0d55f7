"""Scoring up to the numbers in Postgres, with a clock for what is not the forward pass."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import psutil
import torch
from transformers import PreTrainedModel

import migrations
from benchmarks.scoring_setting import Clock
from core.outcomes import Outcomes
from evaluation import likelihood
from evaluation.scorer import Scorer
from huarizo.embedded.connection import running
from huarizo.embedded.supervisor import EmbeddedServers
from store import outcomes
from store.session import Database


@dataclass
class Forward:
    """The reader's forward passes (masks, body, head, log-probabilities), timed or left out.

    Attributes:
        clock: what they are timed with.
        left_out: whether nothing is computed and every answer is zero.
        seconds: spent in them so far.
    """

    clock: Clock
    left_out: bool = False
    seconds: float = 0.0
    _inside: bool = field(default=False, repr=False)

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """While this holds, passes are seen."""
        with contextlib.ExitStack() as patches:
            for name, absent in (("_read_batch", _no_answers), ("hidden_states", _nothing)):
                work = absent if self.left_out else getattr(likelihood, name)
                patches.enter_context(mock.patch.object(likelihood, name, partial(self._pass, work)))
            yield

    def _pass(self, work: Callable[..., Any], *args: Any, **options: Any) -> Any:
        if self._inside:
            return work(*args, **options)
        begun, self._inside = self.clock(), True
        try:
            return work(*args, **options)
        finally:
            self._inside = False
            self.seconds += self.clock() - begun


def _no_answers(model: PreTrainedModel, batch: Any, *_: Any, **__: Any) -> tuple[torch.Tensor, torch.Tensor]:
    count = len(batch.entry_row)
    return torch.zeros(count), torch.ones(count, dtype=torch.bool)


def _nothing(*_: Any, **__: Any) -> torch.Tensor:
    return torch.empty(0)


class Shelf:
    """Outcomes in a Postgres of the benchmark's own.

    Attributes:
        url: its address.
        database: the same, opened.

    Args:
        servers: running servers.
        folder: theirs.
    """

    def __init__(self, servers: EmbeddedServers, folder: Path) -> None:
        migrations.upgrade(servers.database_url)
        self.url = servers.database_url
        self.database = Database(self.url)
        state = running(folder)
        assert state is not None
        self._server = psutil.Process(state.postgres_pid)

    def clock(self) -> float:
        """Processor seconds of this process and of the database server, all of its processes together."""
        spent = time.process_time()
        for process in (self._server, *self._server.children()):
            times = process.cpu_times()
            spent += times.user + times.system + times.children_user + times.children_system
        return spent

    def score(
        self, model: PreTrainedModel, scorer: Scorer, digest: str, documents: dict[str, int]
    ) -> dict[str, Outcomes]:
        """Score and commit block after block; what the database knows then."""
        found = {}
        for task, count in documents.items():
            prepared = scorer.prepared.tasks[task]
            key = {"recipe_digest": digest, "fingerprint": prepared.fingerprint("float32", "cpu")}
            keep = partial(self._keep, {**key, "task": task, "documents": prepared.content.documents})
            scorer.score(model, task, range(count), on_block=keep)
            with self.database.reading() as session:
                found[task] = outcomes.load(session, **key)
        return found

    def _keep(self, place: dict[str, Any], block: Outcomes) -> None:
        with self.database.transaction() as session:
            outcomes.complete(session, **place, outcomes=block)


@contextlib.contextmanager
def shelf(folder: Path) -> Iterator[Shelf]:
    """Servers that run for as long as they are needed."""
    folder.mkdir()
    with EmbeddedServers(folder) as servers:
        opened = Shelf(servers, folder)
        try:
            yield opened
        finally:
            opened.database.dispose()
