"""Write a trial's weights as a Hugging Face checkpoint; the manifest comes last, so a folder with one is complete."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from core.errors import CancelledError, ServiceUnavailableError, TrialError
from core.records import ArtifactRecord, JobRecord, StepRecord, TrialRecord, utc
from core.states import StepState
from merging.export import ExportInfo, Finish, export
from store import artifacts, jobs, steps, trials
from workers.card import model_card
from workers.heart import Heart
from workers.places import link_roots
from workers.provenance import provenance
from workers.runner.bench import Bench
from workers.runner.manifest import MANIFEST, sha256_of, write_manifest

log = logging.getLogger(__name__)


def run(bench: Bench, step: StepRecord, heart: Heart) -> None:
    """Export, check that the bytes are those that were scored, and record the artifact.

    Raises:
        TrialError: the exported weights differ from the scored ones.
        CancelledError, LeaseLostError: the step is no longer ours.
    """
    with bench.database.reading() as session:
        trial = trials.get(session, str(step.trial_id))
        job = jobs.get(session, trial.job_id)
        rivals = trials.of_job(session, job.id)
    root = bench.settings.artifact_root()
    root.mkdir(parents=True, exist_ok=True)
    with claimed_folder(bench, step, root, "checkpoint") as folder:
        manifest: dict[str, Any] = {}

        def finish(unnamed: Path, info: ExportInfo) -> None:
            _check_scored(trial, info)
            (unnamed / "README.md").write_text(model_card(job, trial, rivals), encoding="utf-8")
            hashes = {file.name: file.sha256 for file in info.files}
            manifest.update(write_manifest(unnamed, _about(bench, job, trial, info), hashes))

        info = _write(bench, step, trial, job, folder, heart, finish)
        _record(bench, step, job, trial, folder, manifest, info)


def _check_scored(trial: TrialRecord, info: ExportInfo) -> None:
    if trial.weights_digest is not None and info.weights_digest != trial.weights_digest:
        raise TrialError(
            f"exported weights must be the scored ones, but {info.weights_digest!r} != {trial.weights_digest!r}: "
            "export on a worker of the kind that scored them, with its library versions"
        )


@contextmanager
def claimed_folder(bench: Bench, step: StepRecord, root: Path, kind: str) -> Iterator[Path]:
    """The folder of this claim of the step; it goes again when it was not recorded.

    Named by step and claim: whoever lost the step clears away its own work, never that of the next holder.
    """
    name = step.id.replace("step_", f"{kind}_")
    for claim in range(step.fence + 1):
        claimed = f"{name}_{claim}"
        for left in (root / claimed, root / f"{claimed}.partial", *root.glob(f".{claimed}.partial-*")):
            shutil.rmtree(left, ignore_errors=True)
    folder = root / f"{name}_{step.fence}"
    try:
        yield folder
    except BaseException:
        if not _recorded(bench, step):
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _recorded(bench: Bench, step: StepRecord) -> bool:
    """Whether the artifact has its row after all: a commit may succeed although its answer, or a bell, fails."""
    try:
        with bench.database.reading() as session:
            now = steps.get(session, step.id)
    except ServiceUnavailableError:
        log.warning("nobody knows whether the export of step %s was recorded: its folder stays", step.id)
        return True
    return now.state is StepState.DONE and now.fence == step.fence


def _write(
    bench: Bench, step: StepRecord, trial: TrialRecord, job: JobRecord, folder: Path, heart: Heart, finish: Finish
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
        roots=link_roots(bench.settings),
        progress=progress,
        finish=finish,
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
