"""What must survive a power cut is on the disk before anybody is told of it: files, and the folders that name them."""

from __future__ import annotations

import errno
import os
from pathlib import Path

#: What systems answer that cannot put a folder on the disk.
_UNABLE = (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES, errno.EPERM)


def sync_file(path: Path) -> None:
    """Wait until a file's bytes are on the disk.

    Raises:
        OSError: it cannot be opened for writing, or the disk does not take it.
    """
    with path.open("r+b") as handle:
        os.fsync(handle.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until a folder's names are on the disk, where the system can do that.

    Raises:
        OSError: the disk does not take them.
    """
    try:
        handle = os.open(folder, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _UNABLE:
            raise
    finally:
        os.close(handle)
