"""Write a trial's weights as a Hugging Face checkpoint; the manifest comes last, so a folder with one is complete."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from core.errors import CancelledError, TrialError
from core.records import ArtifactRecord, JobRecord, StepRecord, TrialRecord, utc
from merging.export import ExportInfo, export
from store import artifacts, jobs, steps, trials
from workers.card import model_card
from workers.heart import Heart
from workers.provenance import provenance
from workers.runner.bench import Bench
from workers.runner.manifest import MANIFEST, sha256_of, write_manifest


def run(bench: Bench, step: StepRecord, heart: Heart) -> None:
    """Export, check that the bytes are those that were scored, and record the artifact.

    Raises:
        TrialError: the exported weights differ from the scored ones.
        CancelledError, LeaseLostError: the step is no longer ours; the unfinished folder is removed.
    """
    with bench.database.reading() as session:
        trial = trials.get(session, str(step.trial_id))
        job = jobs.get(session, trial.job_id)
        rivals = trials.of_job(session, job.id)
    root = bench.settings.artifact_root()
    root.mkdir(parents=True, exist_ok=True)
    # Named by step: a repeated step replaces its own unfinished work and nothing else.
    folder = root / step.id.replace("step_", "checkpoint_")
    shutil.rmtree(folder, ignore_errors=True)
    info = _write(bench, step, trial, job, folder, heart)
    if trial.weights_digest is not None and info.weights_digest != trial.weights_digest:
        shutil.rmtree(folder)
        raise TrialError(
            f"exported weights must be the scored ones, but {info.weights_digest!r} != {trial.weights_digest!r}"
        )
    card = model_card(job, trial, rivals)
    (folder / "README.md").write_text(card, encoding="utf-8")
    manifest = write_manifest(folder, _about(bench, job, trial, info))
    _record(bench, step, job, trial, folder, manifest, info)


def _write(
    bench: Bench, step: StepRecord, trial: TrialRecord, job: JobRecord, folder: Path, heart: Heart
) -> ExportInfo:
    known = bench.models_of(job)

    def progress(_done: int, _total: int) -> None:
        if heart.cancelled:
            raise CancelledError("the export was cancelled")

    return export(
        trial.resolved,
        bench.parents(known),
        folder,
        max_shard_bytes=int(step.payload.get("max_shard_bytes", job.request.export.max_shard_bytes)),
        tokenizer_folder=bench.tokenizer_folder(trial.resolved, known),
        progress=progress,
    )


def _about(bench: Bench, job: JobRecord, trial: TrialRecord, info: ExportInfo) -> dict[str, Any]:
    return {
        "format": 1,
        "job": job.id,
        "trial": trial.id,
        "recipe_digest": trial.recipe_digest,
        "weights_digest": info.weights_digest,
        "parameters": info.parameters,
        "recipe": trial.recipe.model_dump(mode="json", exclude_none=True),
        "models": [model.model_dump(mode="json") for model in job.request.models],
        "fingerprints": job.fingerprints,
        "verdict": job.verdict,
        "provenance": provenance(bench.device),
        "created": utc(trial.created_at),
    }


def _record(
    bench: Bench,
    step: StepRecord,
    job: JobRecord,
    trial: TrialRecord,
    folder: Path,
    manifest: dict[str, Any],
    info: ExportInfo,
) -> ArtifactRecord:
    files = tuple(manifest["files"])
    extra = folder / MANIFEST
    files = (*files, {"path": MANIFEST, "bytes": extra.stat().st_size, "sha256": sha256_of(extra)})
    with bench.database.transaction() as session:
        steps.guard(session, step.id, step.fence)
        artifact = artifacts.create(
            session,
            job_id=job.id,
            trial_id=trial.id,
            kind="checkpoint",
            path=folder.name,
            files=files,
            bytes=sum(int(file["bytes"]) for file in files),
            weights_digest=info.weights_digest,
        )
        steps.finish(session, step.id, step.fence, {"artifact": artifact.id})
        if step.job_id is not None:
            steps.ensure_advance(session, step.job_id)
    return artifact
