"""Explain a job: write what its search found out as one JSON file, kept as an artifact."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from core.records import StepRecord
from core.settings import Settings
from store import artifacts, explanations, jobs, steps
from store.session import Database
from workers.phases.explaining import explain
from workers.provenance import provenance
from workers.runner.manifest import MANIFEST, sha256_of, write_manifest

#: The file's name within the artifact.
FILE = "explain.json"


def run(database: Database, settings: Settings, step: StepRecord) -> None:
    """Explain the job named in the payload.

    Raises:
        NotFoundError: the job is gone.
        LeaseLostError: another worker explains it now.
    """
    with database.reading() as session:
        job = jobs.get(session, str(step.payload["job_id"]))
        found = explain(session, job)
    folder = settings.artifact_root() / f"explain_{step.id}_{step.fence}"
    try:
        manifest = _write(folder, {**found, "provenance": provenance(None)})
        with database.transaction() as session:
            steps.guard(session, step.id, step.fence)
            kept = artifacts.create(
                session,
                job_id=job.id,
                trial_id=None,
                kind=explanations.KIND,
                path=folder.name,
                files=manifest,
                bytes=sum(int(str(file["bytes"])) for file in manifest),
            )
            steps.finish(session, step.id, step.fence, {"artifact": kept.id})
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _write(folder: Path, found: dict[str, object]) -> list[dict[str, object]]:
    """The files of the folder, manifest included, with their sizes and hashes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_text(json.dumps(found, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    files = list(write_manifest(folder, {"format": 1, "job": found["job"]})["files"])
    extra = folder / MANIFEST
    return [*files, {"path": MANIFEST, "bytes": extra.stat().st_size, "sha256": sha256_of(extra)}]
