"""Children that do not outlive their parent, not even one that was killed with SIGKILL.

On Linux the kernel is asked to signal the child when its parent dies (`prctl(PR_SET_PDEATHSIG)`). Elsewhere a small
watchdog process holds the read end of a pipe whose only writer is the parent: end of file means the parent is gone.
Either way the tie is made by `leash.py`, which then becomes the command, so the returned process *is* the command.

Two things to know:

- The kernel's promise is tied to the *thread* that made the child, not to the process. All children are therefore
  made by one thread that lives as long as the process; callers may use any thread, short-lived ones too.
- The kernel signals the child alone, and once. A child that can ignore the signal, or has children of its own, should
  be given SIGKILL, tie its own children with `popen`, or be started with `means="watchdog"`, which ends the group.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import queue
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import IO, Any, Literal

Means = Literal["kernel", "watchdog"]
Stream = int | IO[Any] | None
_LEASH = Path(__file__).with_name("leash.py")


def default_means() -> Means:
    """What ties a child to its parent on this system."""
    return "kernel" if sys.platform.startswith("linux") else "watchdog"


def popen(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: str | Path | None = None,
    stdin: Stream = None,
    stdout: Stream = None,
    stderr: Stream = None,
    text: bool = False,
    pass_fds: Sequence[int] = (),
    umask: int = -1,
    death_signal: signal.Signals = signal.SIGTERM,
    user: str | int | None = None,
    group: int | None = None,
    new_session: bool = True,
    means: Means | None = None,
    grace: float = 2.0,
) -> subprocess.Popen[Any]:
    """Start `argv`; it gets `death_signal` when this process is gone, however it went.

    With `user` (root only) the child runs as that account, without supplementary groups. `means` defaults to
    `default_means()`. Under "watchdog" what is left of the child's group is killed `grace` seconds after the signal;
    only a child with `new_session` has a group of its own.

    The exit status 125 says that the parent died first, 126 that the command could not be executed (stderr says why).

    Raises:
        FileNotFoundError: the command is not on PATH.
        PermissionError: `user` is another account and this process is not root.
    """
    command = [str(word) for word in argv]
    program = _program(command[0], os.environ if env is None else env)
    identity = _identity(user, group)
    pipe = os.pipe() if (means or default_means()) == "watchdog" else None
    leash = _leash(program, command, death_signal, identity, None if pipe is None else pipe[0], grace)

    def start() -> subprocess.Popen[Any]:
        return subprocess.Popen(
            leash,
            env=env,
            cwd=cwd,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            text=text,
            pass_fds=(*pass_fds, *(pipe[:1] if pipe else ())),
            umask=umask,
            start_new_session=new_session,
        )

    try:
        process = _spawner.run(start)
    except BaseException:
        if pipe:
            os.close(pipe[1])
        raise
    finally:
        if pipe:
            os.close(pipe[0])
    if pipe:
        _writers.hold(process, pipe[1])
    return process


def _program(name: str, env: Mapping[str, str]) -> str:
    """The file to execute: searched on PATH here, as whoever starts it may be unable to see every folder there."""
    found = name if os.sep in name else shutil.which(name, path=env.get("PATH"))
    if found is None:
        raise FileNotFoundError(f"a command must be an executable file on PATH; got {name!r}")
    return found


def _leash(
    program: str,
    command: list[str],
    death_signal: int,
    identity: tuple[int, int] | None,
    pipe: int | None,
    grace: float,
) -> list[str]:
    uid, gid = identity or ("", "")
    options = {
        "parent": os.getpid(),
        "signal": int(death_signal),
        "uid": uid,
        "gid": gid,
        "pipe": "" if pipe is None else pipe,
        "grace": grace,
    }
    words = [f"{name}={value}" for name, value in options.items()]
    return [sys.executable, "-I", "-S", str(_LEASH), *words, "--", program, *command]


def _identity(user: str | int | None, group: int | None) -> tuple[int, int] | None:
    """(uid, gid) to change to, or None to stay what we are."""
    if user is None:
        return None
    uid = user if isinstance(user, int) else pwd.getpwnam(user).pw_uid
    if uid == os.geteuid():
        return None
    if os.geteuid() != 0:
        raise PermissionError(
            f"only root can start a process as another user; asked for {user!r} as uid {os.geteuid()!r}"
        )
    return uid, group if group is not None else pwd.getpwuid(uid).pw_gid


class _Spawner:
    """The one thread that makes children. It never ends, so no child is signalled because its maker's thread did."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._orders: queue.SimpleQueue[tuple[Callable[[], subprocess.Popen[Any]], Future[subprocess.Popen[Any]]]] = (
            queue.SimpleQueue()
        )
        self._thread: threading.Thread | None = None

    def run(self, make: Callable[[], subprocess.Popen[Any]]) -> subprocess.Popen[Any]:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="lifeline", daemon=True)
                self._thread.start()
        answer: Future[subprocess.Popen[Any]] = Future()
        self._orders.put((make, answer))
        return answer.result()

    def _serve(self) -> None:
        while True:
            make, answer = self._orders.get()
            try:
                answer.set_result(make())
            except BaseException as error:
                answer.set_exception(error)


class _Writers:
    """The write ends of the watchdogs' pipes, held for as long as their children live."""

    def __init__(self) -> None:
        self._held: list[tuple[subprocess.Popen[Any], int]] = []
        self._lock = threading.Lock()

    def hold(self, process: subprocess.Popen[Any], descriptor: int) -> None:
        with self._lock:
            for ended, unused in [pair for pair in self._held if pair[0].returncode is not None]:
                self._held.remove((ended, unused))
                os.close(unused)
            self._held.append((process, descriptor))

    def close(self) -> None:
        for _, descriptor in self._held:
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self._held = []


_spawner = _Spawner()
_writers = _Writers()


def _after_fork() -> None:
    """A forked copy of this process has no spawner thread, and its copy of a pipe would keep orphans alive."""
    global _spawner, _writers
    _writers.close()
    _spawner, _writers = _Spawner(), _Writers()


os.register_at_fork(after_in_child=_after_fork)
