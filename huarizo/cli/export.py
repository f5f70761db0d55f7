"""`huarizo export`: a checkpoint on this disk, every file checked against its hash."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from core.errors import CheckpointError, ConflictError, NotFoundError, TrialTimeoutError, TruncatedCheckpointError
from core.states import StepState
from huarizo.cli.console import err, print_json, remark, say
from huarizo.cli.failure import error_of
from huarizo.cli.patience import patiently
from huarizo.cli.progress import Advance, shown
from huarizo.cli.session import connect
from huarizo.client import Client

POLL_SECONDS = 1.0
PATIENCE_SECONDS = 3600.0
ATTEMPTS = 3
Json = Mapping[str, Any]


def export(what: str, folder: Path, *, as_json: bool) -> None:
    """Download what an artifact, a trial or a job stands for.

    Raises:
        NotFoundError: a job without a checkpoint.
        CheckpointError: a file whose bytes are not the ones the service vouches for.
        ConflictError: `folder` is a file, or holds another version of one of the files.
    """
    with connect() as client:
        artifact = find(client, what)
        with shown(err(), "download") as advance:
            download(client, artifact, folder, advance)
    if as_json:
        print_json({"artifact": artifact, "folder": str(folder.absolute())})
    else:
        say(f"{folder}: {len(artifact['files'])} files, weights {artifact['weights_digest']}")


def find(client: Client, what: str, *, poll_seconds: float = POLL_SECONDS) -> Json:
    """The artifact of an id: an artifact's own, a job's newest, a trial's, which is exported if it never was."""
    if what.startswith("trial_"):
        return client.artifact(exported(client, what, poll_seconds))
    if what.startswith("job_"):
        job = client.job(what)
        if not job["artifacts"]:
            raise NotFoundError(
                f"job {what!r} ({job['state']}) has no checkpoint: export one of its trials (`huarizo trials`)"
            )
        return client.artifact(job["artifacts"][-1])
    return client.artifact(what)


def exported(client: Client, trial_id: str, poll_seconds: float) -> str:
    """The id of a trial's checkpoint; it is written first if there is none.

    Raises:
        HuarizoError: writing it failed, with the failure's code.
        TrialTimeoutError: it did not come within PATIENCE_SECONDS.
    """
    there = client.trial(trial_id)["artifacts"]
    if not there:
        remark("writing the checkpoint")
        _await_step(client, client.export_trial(trial_id)["id"], poll_seconds)
        there = patiently(lambda: client.trial(trial_id))["artifacts"]
    return str(there[-1])


def _await_step(client: Client, step_id: str, poll_seconds: float) -> None:
    """Return once a step is done."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (step := patiently(lambda: client.step(step_id)))["state"] != StepState.DONE:
        if StepState(step["state"]).final:
            failure = step["failure"] or {}
            raise error_of(failure.get("code", ""), failure.get("message") or f"the export was {step['state']}")
        if time.monotonic() > deadline:
            raise TrialTimeoutError(
                f"a checkpoint must be written within {PATIENCE_SECONDS:g} s, but step {step_id!r} is still "
                f"{step['state']}: see whether a device worker runs, then export again"
            )
        time.sleep(poll_seconds)


def download(client: Client, artifact: Json, folder: Path, advance: Advance = lambda _doing, _done: None) -> None:
    """Write an artifact's files; those that are there and right are kept, so a broken download can be repeated."""
    files = artifact["files"]
    targets = {file["path"]: inside(folder, file["path"]) for file in files}
    _refuse_others(files, targets)
    folder.mkdir(parents=True, exist_ok=True)
    whole = max(sum(int(file["bytes"]) for file in files), 1)
    done = 0
    for file in files:
        name, before = file["path"], done

        def seen(count: int, name: str = name) -> None:
            nonlocal done
            done += count
            advance(name, min(done / whole, 1.0))

        if not targets[name].exists():
            _fetch(client, artifact["id"], file, targets[name], seen)
        done = before + int(file["bytes"])
        advance(name, done / whole)


def _fetch(client: Client, artifact_id: str, file: Json, target: Path, seen: Callable[[int], None]) -> None:
    """Download beside the target, check, move into place."""
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}.part")
    try:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                digest = patiently(lambda: client.download(artifact_id, file["path"], unfinished, seen=seen))
                break
            except TruncatedCheckpointError:
                if attempt == ATTEMPTS:
                    raise
        if digest != file["sha256"]:
            raise CheckpointError(
                f"{file['path']!r} must have sha256 {file['sha256']!r}, but what came has {digest!r}: export it again",
                where=file["path"],
            )
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)


def inside(folder: Path, name: str) -> Path:
    """Where a file goes; a name that leads out of the folder is refused, whoever sent it."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise CheckpointError(f"files of an artifact stay in its folder, but one is called {name!r}")
    return folder / path


def _refuse_others(files: Sequence[Json], targets: Mapping[str, Path]) -> None:
    for file in files:
        target = targets[file["path"]]
        if target.exists() and _sha256(target) != file["sha256"]:
            raise ConflictError(f"{str(target)!r} is there already and differs: name a new folder, or remove it")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
