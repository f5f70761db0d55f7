"""Where models lie for a worker: under the configured roots, or fetched from the hub."""

from __future__ import annotations

from pathlib import Path

from core.checkpoint import check_inside
from core.errors import MissingCheckpointError
from core.jobs import HUB_REF, LOCAL_REF
from core.refs import check_hub, resolve_local
from core.settings import Settings

#: What is fetched of a hub repository: never pickles, never code.
HUB_FILES = ("*.safetensors", "*.safetensors.index.json", "*.json", "tokenizer.model", "*.jinja", "*.txt")


def model_folder(ref: str, settings: Settings) -> Path:
    """The folder of a referenced model; a hub repository is fetched (or found in the local cache).

    Raises:
        PathNotAllowedError: outside the configured roots, a hub id that the allow-list refuses, or a folder with a
            file that links to outside.
        MissingCheckpointError: nothing there.
    """
    if LOCAL_REF.match(ref):
        folder = resolve_local(ref, settings.model_roots)
        check_inside(folder, settings.model_roots)
        return folder
    check_hub(ref, settings.hub_allow)
    hub = HUB_REF.match(ref)
    assert hub is not None
    folder = _fetch(hub["repo"], hub["revision"])
    check_inside(folder, (_hub_cache(),))
    return folder


def link_roots(settings: Settings) -> tuple[Path, ...]:
    """Under which folders the files of any model may lie: the model roots and the hub's cache."""
    return (*settings.model_roots, _hub_cache())


def pinned(ref: str, folder: Path) -> str:
    """The reference with the exact revision: hub snapshots lie in folders named by their commit."""
    hub = HUB_REF.match(ref)
    return f"hub:{hub['repo']}@{folder.name}" if hub else ref


def _hub_cache() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _fetch(repo: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
    )

    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=list(HUB_FILES)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise MissingCheckpointError(
            f"{repo!r} cannot be fetched from the hub ({reason}): check the id, the network, or use local:<path>"
        ) from error
