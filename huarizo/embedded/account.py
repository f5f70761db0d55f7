"""Which account the servers run as, and what that account can reach.

PostgreSQL refuses to run as root. Started by root, both servers therefore run as `nobody`, or as the owner of data
that is already there; no user is created and no permission of anything outside the data folder is changed.
"""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from core.errors import EmbeddedServerError

UNPRIVILEGED = "nobody"


@dataclass(frozen=True)
class Account:
    """A user and group id; `switched` says that it is not the one this process runs as."""

    uid: int
    gid: int
    switched: bool

    def can_read(self, paths: Sequence[Path]) -> bool:
        """Whether every path can be read by this account, parent folders and access lists included."""
        return self._test("-r", paths)

    def can_execute(self, paths: Sequence[Path]) -> bool:
        """Whether every path can be executed (a folder: entered) by this account."""
        return self._test("-x", paths)

    def give(self, folder: Path) -> None:
        """Make a folder, or the one that is there, this account's own, closed to everybody else."""
        folder.mkdir(mode=0o700, exist_ok=True)
        # By descriptor, so that no link put in its place can lead root to another folder.
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            if self.switched:
                os.fchown(descriptor, self.uid, self.gid)
            os.fchmod(descriptor, 0o700)
        finally:
            os.close(descriptor)

    def _test(self, flag: str, paths: Sequence[Path]) -> bool:
        if not self.switched:
            return all(os.access(path, os.R_OK if flag == "-r" else os.X_OK) for path in paths)
        # The kernel answers for the other user; mode bits alone would miss access lists and mount options.
        script = f'for path; do test {flag} "$path" || exit 1; done'
        answer = subprocess.run(
            ["/bin/sh", "-c", script, "sh", *map(str, paths)],
            user=self.uid,
            group=self.gid,
            extra_groups=[],
            cwd="/",
            check=False,
        )
        return answer.returncode == 0


def account_for(data: Path) -> Account:
    """The account that runs a server over the folder `data`, which may not exist yet.

    Raises:
        EmbeddedServerError: root has no unprivileged user to turn to.
    """
    if os.geteuid() != 0:
        return Account(os.geteuid(), os.getegid(), switched=False)
    if data.exists() and data.stat().st_uid != 0:
        owner = data.stat()
        return Account(owner.st_uid, owner.st_gid, switched=True)
    try:
        entry = pwd.getpwnam(UNPRIVILEGED)
    except KeyError as error:
        raise EmbeddedServerError(
            f"PostgreSQL never runs as root and this system has no user {UNPRIVILEGED!r} to run it as: "
            "start Huarizo as an ordinary user, or use servers of your own (settings database_url and broker_url)"
        ) from error
    return Account(entry.pw_uid, entry.pw_gid, switched=True)
