"""Artifacts: checkpoints, generators, explanations, and their files."""

from __future__ import annotations

from fastapi import APIRouter, BackgroundTasks, Request, Response
from fastapi.responses import FileResponse, StreamingResponse

from api.access import Cursor, Limit, Reading, SettingsIn, Writing
from api.answers import page_out, problems
from api.archive import stream_tar, tar_length
from api.files import artifact_file, artifact_files, remove_files
from api.schemas.artifacts import ArtifactOut
from api.schemas.page import PageOut
from api.strict import StrictRoute
from store import artifacts, generators

router = APIRouter(prefix="/v1/artifacts", tags=["artifacts"], route_class=StrictRoute)


@router.get("", responses=problems(422))
def list_artifacts(
    request: Request, response: Response, s: Reading, settings: SettingsIn, limit: Limit = None, cursor: Cursor = None
) -> PageOut[ArtifactOut]:
    """Artifacts, newest first."""
    return page_out(request, response, artifacts.page(s, limit or settings.page_size, cursor), ArtifactOut.of)


@router.get("/{artifact_id}", responses=problems(404))
def get_artifact(artifact_id: str, s: Reading) -> ArtifactOut:
    """An artifact with the manifest of its files."""
    return ArtifactOut.of(artifacts.get(s, artifact_id))


@router.delete("/{artifact_id}", status_code=204, responses=problems(404, 409))
def delete_artifact(artifact_id: str, s: Writing, settings: SettingsIn, afterwards: BackgroundTasks) -> None:
    """Delete an artifact with its files. A generator that a job under way samples from is kept: 409."""
    record = artifacts.get(s, artifact_id)
    generators.check_unused(s, record)
    artifacts.delete(s, artifact_id)
    # Only once nobody finds it any more.
    afterwards.add_task(remove_files, record, settings)


@router.get("/{artifact_id}/files/{path:path}", response_class=FileResponse, responses=problems(404))
def get_file(artifact_id: str, path: str, s: Reading, settings: SettingsIn) -> FileResponse:
    """One file of the manifest; ranges are served, so a broken download can be taken up again."""
    file = artifact_file(artifacts.get(s, artifact_id), path, settings)
    return FileResponse(file.path, filename=file.path.name, headers={"X-Content-SHA256": file.sha256})


@router.get("/{artifact_id}/download", response_class=StreamingResponse, responses=problems(404))
def download(artifact_id: str, s: Reading, settings: SettingsIn) -> StreamingResponse:
    """All files as one uncompressed tar (weights do not compress), streamed."""
    record = artifacts.get(s, artifact_id)
    files = artifact_files(record, settings)
    headers = {
        "Content-Disposition": f'attachment; filename="{record.id}.tar"',
        "Content-Length": str(tar_length(record.id, files)),
    }
    body = stream_tar(record.id, files, record.created_at)
    return StreamingResponse(body, media_type="application/x-tar", headers=headers)
