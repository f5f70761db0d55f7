"""Scoring a built candidate on some documents, reusing every outcome that is already stored."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from core.errors import CancelledError, ConflictError, OutOfMemoryError, TaskError
from core.model import Model
from core.objective import TaskSpec
from core.outcomes import Outcomes
from core.recipe import ResolvedRecipe
from core.records import JobRecord, Score, StepRecord
from core.scores import macro_of, score_of
from core.tasks import Part, order, part_of
from evaluation.precision import agreement
from evaluation.scorer import Layers, Scorer
from merging.resident import Built
from store import jobs, outcomes, steps
from workers.heart import Heart
from workers.runner.bench import Bench

#: Items of each task on which half precision is compared with float32.
CHECKED = 128


@dataclass(frozen=True)
class Scored:
    """A candidate's results along the study's order, task by task, and how many of them were newly scored."""

    job: JobRecord
    found: tuple[tuple[TaskSpec, tuple[int, ...], Outcomes], ...]
    fresh: int

    def scores(self, items: int | None = None) -> tuple[Score, ...]:
        """One score per task over its first `items` documents."""
        return tuple(score_of(spec, have.select(numbers[:items])) for spec, numbers, have in self.found)

    def macro(self, items: int | None = None) -> float:
        """The weighted mean over tasks of their first `items` documents."""
        return macro_of(self.scores(items), self.job.request.objective.shares)


@dataclass
class Candidate:
    """What is being scored: a recipe, its weights in place, and the step that pays for it.

    `build_seconds` is what writing it into the resident model took, loading the parents not counted.
    """

    bench: Bench
    step: StepRecord
    heart: Heart
    job: JobRecord
    recipe: ResolvedRecipe
    scorer: Scorer
    built: Built
    build_seconds: float

    @cached_property
    def recipe_digest(self) -> str:
        """The recipe's digest, under which its outcomes are kept."""
        return self.recipe.digest()

    @cached_property
    def layers(self) -> Layers:
        """What the candidate is made of.

        Where whole layers are stacked anew, candidates have lower layers in common from the first one on. Weights that
        are merged differ from layer to layer, and keeping what nobody comes for costs two parts in a hundred.
        """
        stacked = any(family.family == "layout" for family in self.job.request.space.families)
        return Layers(self.recipe.embed_key(), self.built.layer_keys, self.job.id if stacked else None)

    def score(self, part: Part, items: int | None) -> Scored:
        """Score on the first `items` documents per task of one part (None: all) along the study's order.

        Raises:
            CancelledError, LeaseLostError: the step is no longer ours; committed blocks stand.
        """
        fingerprints = self.fingerprints()
        found, fresh = [], 0
        for spec in self.job.request.objective.tasks:
            numbers = self.numbers(spec, part)[:items]
            have, new = self._complete(spec, fingerprints[spec.task], numbers, part)
            found.append((spec, numbers, have.select(numbers)))
            fresh += new
        return Scored(self.job, tuple(found), fresh)

    def precision(self, scored: Scored) -> dict[str, Any]:
        """How many of the first items come out otherwise than they would in float32; empty where that is the dtype.

        Raises:
            CancelledError: the step is no longer ours.
        """
        if self.scorer.dtype == torch.float32:
            return {}
        first = {spec.task: (numbers[:CHECKED], have) for spec, numbers, have in scored.found}
        dtype = str(self.scorer.dtype).removeprefix("torch.")
        try:
            seen = agreement(self.built.model, self.scorer.prepared, first, cancelled=lambda: self.heart.cancelled)
        except OutOfMemoryError as error:
            return {"precision": {"dtype": dtype, "unknown": error.message}}
        tasks = {task: each._asdict() for task, each in seen.items()}
        items, differing = (sum(each[place] for each in seen.values()) for place in (0, 1))
        return {"precision": {"dtype": dtype, "items": items, "differing": differing, "tasks": tasks}}

    def numbers(self, spec: TaskSpec, part: Part) -> tuple[int, ...]:
        """The documents of one part in the study's order."""
        content = self.scorer.prepared.tasks[spec.task].content
        numbers = part_of(content, part, self.job.request.confirmation.final_split)
        return order(self.job.request.seed, content.content_digest, numbers)

    def fingerprints(self) -> dict[str, str]:
        """This runner's fingerprints, which must be those the job began with.

        Raises:
            ConflictError: another device kind or library version scored the job's other candidates.
            TaskError: a task's documents changed since the job began.
        """
        prepared = self.scorer.prepared.tasks
        for task, content in self.job.documents.items():
            if prepared[task].content.content_digest != content:
                raise TaskError(
                    f"the documents of task {task!r} changed since the job began: post a new job", where=task
                )
        mine = self.bench.fingerprints(self.scorer)
        with self.bench.database.transaction() as session:
            pinned = jobs.pin_fingerprints(session, self.job.id, mine)
        odd = sorted(task for task in mine if pinned.get(task) != mine[task])
        if odd:
            raise ConflictError(
                f"candidates of one job must be scored alike, but task {odd[0]!r} was first scored on another kind of "
                "device, with other library versions or another length of prompts: use workers of one kind"
            )
        return mine

    def _complete(self, spec: TaskSpec, fingerprint: str, numbers: Sequence[int], part: Part) -> tuple[Outcomes, int]:
        """Stored outcomes plus freshly scored ones; every block is committed as it comes."""
        content = self.scorer.prepared.tasks[spec.task].content
        with self.bench.database.reading() as session:
            have = outcomes.load(session, self.recipe_digest, fingerprint)
        missing = have.missing(numbers)

        def keep(block: Outcomes) -> None:
            with self.bench.database.transaction() as session:
                steps.guard(session, self.step.id, self.step.fence)
                # Another job may score the same candidate at this moment: its outcomes stand, ours of them are dropped.
                fresh = outcomes.complete(
                    session,
                    recipe_digest=self.recipe_digest,
                    fingerprint=fingerprint,
                    task=spec.task,
                    documents=content.documents,
                    outcomes=block,
                )
                if part == "search":
                    jobs.count(session, self.job.id, items=len(fresh))

        if missing:
            if self.heart.cancelled:
                raise CancelledError("the step was cancelled before its candidate was scored")
            self.scorer.score(
                self.built.model,
                spec.task,
                missing,
                cancelled=lambda: self.heart.cancelled,
                on_block=keep,
                layers=self.layers,
            )
            with self.bench.database.reading() as session:
                have = outcomes.load(session, self.recipe_digest, fingerprint)
        return have, len(missing)


def place(
    bench: Bench, step: StepRecord, heart: Heart, job: JobRecord, recipe: ResolvedRecipe, known: Mapping[str, Model]
) -> Candidate:
    """Build the candidate into the resident model and make it ready to be scored."""
    resident = bench.resident(known)
    started = time.monotonic()
    built = resident.build(recipe)
    bench.synchronize()
    seconds = time.monotonic() - started
    scorer = bench.scorer(job, recipe, known)
    return Candidate(bench, step, heart, job, recipe, scorer, built, seconds)
