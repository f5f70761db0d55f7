"""Train a generator of weights, tell how it goes, and keep it as an artifact."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from core.errors import CancelledError, InvalidInputError, LeaseLostError
from core.jobs import Elite, GeneratorJob
from core.model import Model
from core.records import JobRecord, StepRecord, TrialRecord, utc
from merging.generation.dataset import Source
from merging.generation.sources import candidate_source, model_source
from store import artifacts, events, generators, jobs, steps, trials
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
    wanted = job.training
    assert wanted is not None
    known = bench.models_of(job)
    root = bench.settings.artifact_root()
    root.mkdir(parents=True, exist_ok=True)
    checkpoint = (bench.settings.home or root) / "training" / f"{step.id}.safetensors"
    try:
        generator = train(
            known[wanted.models[0].name].header,
            sources_of(bench, wanted, known),
            wanted.settings,
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


def sources_of(bench: Bench, wanted: GeneratorJob, known: dict[str, Model]) -> list[Source]:
    """What is learned from: the base, the other models, the elite.

    Raises:
        InvalidInputError: an elite of which nothing has the base's layers.
    """
    ranked, others = ([], {}) if wanted.elite is None else _elite(bench, wanted.elite, known[wanted.models[0].name])
    parents = bench.parents({**known, **others})
    digests = dict.fromkeys(known[model.name].weights_digest for model in wanted.models)
    found = [model_source(parents, digest) for digest in digests]
    return found + [candidate_source(trial.resolved, parents, trial.macro) for trial in ranked]


def _elite(bench: Bench, elite: Elite, base: Model) -> tuple[list[TrialRecord], dict[str, Model]]:
    """The best candidates of a search that are built like the base, and that search's models."""
    with bench.database.reading() as session:
        job = jobs.get(session, elite.job)
        every = trials.of_job(session, job.id)
    best: dict[str, TrialRecord] = {}
    for trial in sorted(every, key=lambda t: (-t.scored_items, -(t.macro or 0.0), t.number)):
        resolved = trial.resolved
        alike = resolved.model_type == base.header.model_type and len(resolved.layers) == base.header.layers
        if alike and trial.macro is not None and trial.origin != "parent":
            best.setdefault(trial.recipe_digest, trial)
    if not best:
        raise InvalidInputError(
            f"an elite needs scored candidates of {base.header.layers} layers, but {job.id!r} has none: wait for it",
            where="elite.job",
        )
    others = {f"{job.id}/{name}": model for name, model in bench.models_of(job).items()}
    return list(best.values())[: elite.top], others


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
