"""Train a generator of weights, for a job of its own or for a search, tell how it goes, and keep it as an artifact."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from core.errors import CancelledError, InvalidInputError, LeaseLostError
from core.jobs import Elite, Lesson
from core.model import Model
from core.records import JobRecord, StepRecord, TrialRecord, utc
from merging.generation.dataset import Source
from merging.generation.sources import candidate_source, model_source
from store import artifacts, events, generators, jobs, steps, trials
from workers.elite import elite
from workers.heart import Heart
from workers.provenance import provenance
from workers.runner.bench import Bench
from workers.runner.export import claimed_folder
from workers.runner.manifest import MANIFEST, sha256_of, write_manifest

#: Events of one training at most: enough for a curve, and few enough to read at once.
TOLD = 200


def run(bench: Bench, step: StepRecord, heart: Heart) -> None:
    """Train what the job asks for. A training that was interrupted goes on from its last state.

    Raises:
        InvalidInputError: sources that nothing can be learned from.
        CancelledError, LeaseLostError: the step is no longer ours; the state is saved.
    """
    # diffusers takes seconds to import, and most runners never train.
    from merging.generation.artifact import save
    from merging.generation.training import train

    started = time.monotonic()
    with bench.database.reading() as session:
        job = jobs.get(session, str(step.job_id))
    lesson = lesson_of(job)
    known = bench.models_of(job)
    root = bench.settings.artifact_root()
    root.mkdir(parents=True, exist_ok=True)
    checkpoint = (bench.settings.home or root) / "training" / f"{step.id}.safetensors"
    try:
        generator = train(
            known[lesson.models[0]].header,
            sources_of(bench, job, step, known),
            lesson.settings,
            device=bench.device,
            checkpoint=checkpoint,
            progress=_told(bench, step, job, heart),
        )
    except (CancelledError, LeaseLostError):
        _forget_cancelled(bench, step, checkpoint)
        raise
    with claimed_folder(bench, step, root, "generator") as folder:
        digest = save(generator, folder)
        about = {"digest": digest, "metrics": generator.metrics, "seconds": round(time.monotonic() - started, 3)}
        _record(bench, step, job, folder, about)
    checkpoint.unlink(missing_ok=True)


def lesson_of(job: JobRecord) -> Lesson:
    """What a job's training learns from beside candidates, and how."""
    lesson = job.posted.lesson
    assert lesson is not None
    return lesson


def sources_of(bench: Bench, job: JobRecord, step: StepRecord, known: dict[str, Model]) -> list[Source]:
    """What is learned from: the base, the other models, the elite.

    Raises:
        InvalidInputError: an elite of which nothing has the base's layers.
    """
    names = lesson_of(job).models
    ranked: list[TrialRecord] = []
    if job.training is None:
        ranked = _chosen(bench, step.payload["elite"])
    elif job.training.elite is not None:
        ranked, others = _elite(bench, job.training.elite, known[names[0]])
        known = {**known, **others}
    parents = bench.parents(known)
    digests = dict.fromkeys(known[name].weights_digest for name in names)
    found = [model_source(parents, digest) for digest in digests]
    return found + [candidate_source(trial.resolved, parents, trial.macro) for trial in ranked]


def _chosen(bench: Bench, ids: list[str]) -> list[TrialRecord]:
    """The candidates that were chosen when the training was ordered, in that order: later ones change nothing."""
    with bench.database.reading() as session:
        return [trials.get(session, id) for id in ids]


def _elite(bench: Bench, wanted: Elite, base: Model) -> tuple[list[TrialRecord], dict[str, Model]]:
    """The best candidates of another search that are built like the base, and that search's models."""
    with bench.database.reading() as session:
        job = jobs.get(session, wanted.job)
        best = elite(trials.of_job(session, job.id), base, wanted.top)
    if not best:
        raise InvalidInputError(
            f"an elite needs scored candidates of {base.header.layers} layers, but {job.id!r} has none: wait for it",
            where="elite.job",
        )
    return best, {f"{job.id}/{name}": model for name, model in bench.models_of(job).items()}


def _told(bench: Bench, step: StepRecord, job: JobRecord, heart: Heart) -> Callable[[int, int, float, float], None]:
    """Writes down how the training goes, and stops it where it is no longer wanted."""
    last = 0

    def told(done: int, of: int, loss: float, seconds: float) -> None:
        nonlocal last
        if heart.cancelled:
            raise CancelledError("the training was cancelled; its state is saved")
        if done < of and done - last < of / TOLD:
            return
        last = done
        payload = {"done": done, "of": of, "loss": round(loss, 6), "seconds": round(seconds, 3)}
        with bench.database.transaction() as session:
            steps.guard(session, step.id, step.fence)
            events.append(session, job.id, generators.PROGRESS, payload)

    return told


def _forget_cancelled(bench: Bench, step: StepRecord, checkpoint: Path) -> None:
    """A step that somebody else holds goes on from its state; one that was cancelled never does."""
    with bench.database.reading() as session:
        if steps.get(session, step.id).state.final:
            checkpoint.unlink(missing_ok=True)


def _record(bench: Bench, step: StepRecord, job: JobRecord, folder: Path, about: dict[str, Any]) -> None:
    origin = {
        "format": 1,
        "job": job.id,
        "request": job.posted.model_dump(mode="json"),
        "provenance": provenance(bench.device),
        "created": utc(job.created_at),
    }
    listed = write_manifest(folder, {**origin, "digest": about["digest"]})["files"]
    extra = folder / MANIFEST
    files = (*listed, {"path": MANIFEST, "bytes": extra.stat().st_size, "sha256": sha256_of(extra)})
    with bench.database.transaction() as session:
        steps.guard(session, step.id, step.fence)
        artifact = artifacts.create(
            session,
            job_id=job.id,
            trial_id=None,
            kind=generators.KIND,
            path=folder.name,
            files=files,
            bytes=sum(int(file["bytes"]) for file in files),
            weights_digest=about["digest"],
        )
        steps.finish(session, step.id, step.fence, {"artifact": artifact.id, **about})
        steps.ensure_advance(session, job.id)
