"""The first thing a child of `lifeline.popen` runs: drop privileges, tie its life to the parent's, become the command.

Run as a file by a bare interpreter (`python -I -S leash.py ...`), so it imports nothing but the standard library.
Being a program of its own, not a `preexec_fn`, it may use ctypes and fork without the hazards of a threaded parent.

Order matters twice. Everything is imported and loaded before the privileges go, since the new user may be unable to
read this interpreter. The kernel is asked after they went, since it forgets the wish when credentials change; a plain
exec it survives.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import sys
import time
from typing import NoReturn

PR_SET_PDEATHSIG = 1
POLL_SECONDS = 0.2
CANNOT_EXECUTE = 126
PARENT_IS_GONE = 125


def main(arguments: list[str]) -> NoReturn:
    """Run `name=value ... -- program argv[0] argv[1] ...`; see `lifeline.popen` for the names."""
    split = arguments.index("--")
    options = dict(word.split("=", 1) for word in arguments[:split])
    program, *command = arguments[split + 1 :]
    parent, death_signal = int(options["parent"]), int(options["signal"])
    libc = ctypes.CDLL(None, use_errno=True)
    if options["uid"]:
        os.setgroups([])
        os.setgid(int(options["gid"]))
        os.setuid(int(options["uid"]))
    if options["pipe"]:
        _post_watchdog(int(options["pipe"]), death_signal, float(options["grace"]))
    elif libc.prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) refused")
    if os.getppid() != parent:  # it died before the tie held, so nothing would ever tell us
        os._exit(PARENT_IS_GONE)
    _reset_signals(death_signal)
    try:
        os.execv(program, command)  # not execvp, which imports as it goes
    except OSError as error:
        print(f"cannot execute {program!r} as uid {os.getuid()}: {error.strerror}", file=sys.stderr)  # noqa: T201
        os._exit(CANNOT_EXECUTE)


def _reset_signals(death_signal: int) -> None:
    """Undo what Python or an outer `nohup`/`&` left ignored: an ignored signal stays ignored across exec."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ, death_signal):
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _post_watchdog(pipe: int, death_signal: int, grace: float) -> None:
    """Leave behind a process, in a session of its own, that ends this one once `pipe` has no writer left."""
    ward = os.getpid()
    between = os.fork()
    if between:
        os.waitpid(between, 0)  # the command must not find a zombie it never started
        os.close(pipe)
        return
    if os.fork():
        os._exit(0)
    try:
        os.setsid()  # a Ctrl-C or a kill of the ward's group must not take its watchdog first
        _let_go_of_everything_but(pipe)
        _watch(pipe, ward, death_signal, grace)
    finally:
        os._exit(0)


def _let_go_of_everything_but(pipe: int) -> None:
    # A held stdout would keep a reader of the command's output waiting for ever.
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.closerange(3, pipe)
    os.closerange(pipe + 1, 4096)


def _watch(pipe: int, ward: int, death_signal: int, grace: float) -> None:
    leads_group = os.getpgid(ward) == ward
    while _lives(ward, leads_group):
        if select.select([pipe], [], [], POLL_SECONDS)[0]:
            _end(ward, leads_group, death_signal, grace)
            return


def _lives(ward: int, leads_group: bool) -> bool:
    try:
        group = os.getpgid(ward)
    except OSError:
        return False
    return group == ward or not leads_group  # another group means that the number belongs to a newcomer


def _end(ward: int, leads_group: bool, death_signal: int, grace: float) -> None:
    """Ask politely, wait `grace` seconds, then kill the whole group."""
    with contextlib.suppress(OSError):
        os.kill(ward, death_signal)
    deadline = time.monotonic() + grace
    while _lives(ward, leads_group) and time.monotonic() < deadline:
        time.sleep(0.02)
    with contextlib.suppress(OSError):
        if leads_group:
            os.killpg(ward, signal.SIGKILL)
        else:
            os.kill(ward, signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1:])
