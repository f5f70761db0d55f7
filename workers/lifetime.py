"""Processes that do not outlive the one that started them, however it ended."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time

import psutil

_PR_SET_PDEATHSIG = 1


def die_with_parent(*, poll_seconds: float = 1.0) -> None:
    """End this process at once when its parent is gone.

    On Linux the kernel is asked to (it acts when the parent's *thread* ends, so the parent starts children from its
    main thread); everywhere a watcher thread also looks for a new parent id, which covers the race at the start.
    """
    parent = os.getppid()
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(poll_seconds)
        os._exit(1)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def process_owner() -> str:
    """An owner name for claims: host, process id and its start time, so that a reused id is not mistaken for us."""
    return f"{_host()}:{os.getpid()}:{_started(os.getpid())}"


def owner_is_dead(owner: str | None) -> bool:
    """Whether `owner` was a process of this host that no longer runs. Owners on other hosts are never called dead."""
    parts = (owner or "").rsplit(":", 2)
    if len(parts) != 3 or parts[0] != _host() or not parts[1].isdigit():
        return False
    return _started(int(parts[1])) != parts[2]


def _host() -> str:
    """Host and boot, and in containers the namespace, so that equal host names of two containers differ."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    return f"{os.uname().nodename}/{int(psutil.boot_time())}/{namespace}".replace(":", "_")


def _started(pid: int) -> str:
    """The process's start time in hundredths of a second, empty where it does not run."""
    try:
        process = psutil.Process(pid)
        return "" if process.status() == psutil.STATUS_ZOMBIE else str(round(process.create_time() * 100))
    except psutil.Error:
        return ""
