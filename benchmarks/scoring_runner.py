"""Candidates of a search job, scored by a runner of this process as a runner process does it, numbers in Postgres."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from benchmarks.scoring_setting import Corpus, processor_clock
from benchmarks.scoring_shelf import Forward, Shelf
from core.jobs import SearchJob
from core.outcomes import Outcomes
from core.records import JobRecord, StepKind, StepRecord
from core.settings import Settings
from store import jobs, outcomes
from workers.heart import Heart
from workers.processes import Process
from workers.runner import run_trial
from workers.runner.bench import Bench
from workers.runner.scoring import Candidate
from workers.runner.work import VERBS, claim_next


@dataclass(frozen=True)
class Finished:
    """A candidate that was scored.

    Attributes:
        seconds: processor time from its weights in place to its trial recorded and its step finished.
        forward: of that, in forward passes.
        weights: its tensors by name.
        found: what the database knows of it, by task, on the documents of the job's one rung.
    """

    seconds: float
    forward: float
    weights: dict[str, torch.Tensor]
    found: dict[str, Outcomes]


class Run:
    """A search over merges of two models, its control steps done at once, its trials one by one.

    Everything that a job does is done: layer keys and the store of hidden states under the settings' defaults, the
    step's lease guarded and its heart beating, documents counted, blocks committed.

    Args:
        shelf: the database.
        corpus: the documents.
        folder: holds `family/a` and `family/b`; other files go there.
        tasks: what is scored, without examples.
        documents: of each task, all that the search sees: parents are scored on all of them, others in one rung.
        trials: candidates that will be asked for, the two parents among them.
    """

    def __init__(
        self, shelf: Shelf, corpus: Corpus, folder: Path, *, tasks: tuple[str, ...], documents: int, trials: int
    ) -> None:
        self._shelf, self._tasks, self.documents = shelf, tasks, documents
        settings = Settings(
            database_url=shelf.url,
            broker_url=None,
            home=folder,
            datasets=corpus.items,
            model_roots=(folder,),
            device="cpu",
            threads=1,
            compile="never",
            lease_seconds=600.0,
        )
        self._control, self._bench = Process(settings), Bench(settings, owner="benchmark")
        with shelf.database.transaction() as session:
            self._job = jobs.create(session, _request(tasks, documents, trials))[0].id
        self.candidate: Candidate | None = None

    def close(self) -> None:
        """Give its connections back."""
        self._control.database.dispose()
        self._bench.database.dispose()

    def numbers(self) -> dict[str, tuple[int, ...]]:
        """The documents of each task that are scored, in the study's order; known once a candidate was placed."""
        assert self.candidate is not None
        specs = self.candidate.job.request.objective.tasks
        found = {spec.task: self.candidate.numbers(spec, "search") for spec in specs}
        counts = {task: len(numbers) for task, numbers in found.items()}
        if set(counts.values()) != {self.documents}:
            raise RuntimeError(f"a search must see {self.documents} documents of each task, but it sees {counts!r}")
        return found

    def next(self) -> Finished:
        """Build and score the next candidate."""
        step, forward, begun = self._claimed(), Forward(processor_clock), 0.0
        weights: dict[str, torch.Tensor] = {}
        admit: Callable[..., Candidate] = run_trial.admitted

        def placed(*args: Any) -> Candidate:
            nonlocal begun
            self.candidate = admit(*args)
            weights.update({name: tensor.clone() for name, tensor in self.candidate.built.tensors.items()})
            begun = self._shelf.clock()
            return self.candidate

        with (
            Heart(self._bench.database, step, self._bench.settings.lease_seconds) as heart,
            mock.patch.object(run_trial, "admitted", placed),
            forward.watched(),
        ):
            run_trial.run(self._bench, step, heart)
        seconds = self._shelf.clock() - begun
        return Finished(seconds, forward.seconds, weights, self._found())

    def _found(self) -> dict[str, Outcomes]:
        assert self.candidate is not None
        fingerprints, digest = self.candidate.fingerprints(), self.candidate.recipe_digest
        with self._shelf.database.reading() as session:
            return {
                task: outcomes.load(session, digest, fingerprints[task]).select(numbers)
                for task, numbers in self.numbers().items()
            }

    def _claimed(self) -> StepRecord:
        """The next trial's step, once everything that comes before it is done."""
        bench = self._bench
        while True:
            for queue in ("inspect", "control"):
                self._control.answer(queue)
            step = claim_next(bench)
            if step is None:
                raise RuntimeError(f"the benchmark's job has no step to run: {self._record().failure}")
            if step.kind is StepKind.RUN_TRIAL:
                return step
            with Heart(bench.database, step, bench.settings.lease_seconds) as heart:
                VERBS[step.kind](bench, step, heart)

    def _record(self) -> JobRecord:
        with self._shelf.database.reading() as session:
            return jobs.get(session, self._job)


def _request(tasks: tuple[str, ...], documents: int, trials: int) -> SearchJob:
    return SearchJob.model_validate(
        {
            "kind": "search",
            "name": "benchmark",
            "models": [{"name": name, "ref": f"local:family/{name}"} for name in ("a", "b")],
            "space": {"families": [{"family": "merge", "methods": ["linear"]}]},
            "objective": {"tasks": [{"task": task, "num_fewshot": 0} for task in tasks]},
            "racing": {"rungs": [documents]},
            "budget": {"trials": trials},
            "export": {"save_dtype": "float32", "when": "never"},
        }
    )
