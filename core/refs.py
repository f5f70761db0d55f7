"""References to models: which path a `local:` reference means, and whether it may be read.

`local:<relative>` is looked up under each root in order. `local:/abs` must lie under a root. What counts is the
place after symbolic links and `..` are followed: a link out of a root leads nowhere.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from core.errors import MissingCheckpointError, PathNotAllowedError
from core.jobs import HUB_REF, LOCAL_REF


def resolve_local(ref: str, roots: Sequence[Path]) -> Path:
    """The folder or file that a `local:` reference means, absolute and free of links.

    Args:
        ref: `local:<path>`.
        roots: folders under which local models may lie, in the order they are searched.

    Raises:
        PathNotAllowedError: not a local reference, no roots, or the place lies outside all of them.
        MissingCheckpointError: allowed, but nothing is there.
    """
    found = LOCAL_REF.match(ref)
    if found is None:
        raise PathNotAllowedError(f"a local model is written local:<path>, but got {ref!r}: add the prefix")
    if not roots:
        raise PathNotAllowedError(f"{ref!r} needs a model root, but none is configured: set HUARIZO_MODEL_ROOTS")
    asked, real_roots = Path(found["path"]), [root.expanduser().resolve() for root in roots]
    # Joining an absolute path to a root gives the absolute path, so both forms go one way.
    places = [_followed(root / asked, ref) for root in real_roots]
    allowed = [place for place, root in zip(places, real_roots, strict=True) if _under(place, real_roots, root, asked)]
    for place in allowed:
        if _exists(place):
            return place
    if not allowed or any(_exists(place) for place in places):
        raise PathNotAllowedError(
            f"local models must lie under a model root, but {ref!r} does not: move it, or add its folder to "
            "HUARIZO_MODEL_ROOTS"
        )
    raise MissingCheckpointError(f"nothing lies at {ref!r} under any model root: check the path")


def check_hub(ref: str, allow: str) -> None:
    """Check that a `hub:` reference is well-formed and that its id matches the allow-list pattern.

    Raises:
        PathNotAllowedError: it is not or does not.
    """
    found = HUB_REF.fullmatch(ref)
    if found is None:
        raise PathNotAllowedError(f"a hub model is written hub:<org>/<name>@<commit>, but got {ref!r}")
    if not re.fullmatch(allow, found["repo"]):
        raise PathNotAllowedError(f"hub ids must match {allow!r}, but got {found['repo']!r}: set HUARIZO_HUB_ALLOW")


def _followed(path: Path, ref: str) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError) as error:  # A loop of links, or a name longer than the file system takes.
        raise PathNotAllowedError(f"{ref!r} cannot be followed: check the path") from error


def _exists(place: Path) -> bool:
    try:
        return place.exists()
    except OSError:  # For example a name longer than the file system takes.
        return False


def _under(place: Path, roots: Sequence[Path], root: Path, asked: Path) -> bool:
    """A relative path must stay under the root it was joined to; an absolute one may lie under any."""
    return any(place.is_relative_to(each) for each in (roots if asked.is_absolute() else [root]))
