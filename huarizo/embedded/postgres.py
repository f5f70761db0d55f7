"""The embedded PostgreSQL: UTF-8, C locale, scram passwords on every connection, 127.0.0.1 and one private socket."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import psycopg

from core.errors import EmbeddedServerError
from huarizo.embedded import binaries, lifeline, places
from huarizo.embedded.account import Account
from huarizo.embedded.server import NotReadyError, ServerProcess

USER = "huarizo"
DATABASE = "huarizo"
INITDB_SECONDS = 300.0
CONNECT_SECONDS = 3


class PostgresServer(ServerProcess):
    """PostgreSQL over `folder/data`."""

    name = "PostgreSQL"
    process_names = ("postgres",)
    # Fast shutdown, then immediate shutdown (recovers at the next start), then none.
    stop_signals: ClassVar[Sequence[tuple[signal.Signals, float]]] = (
        (signal.SIGINT, 30.0),
        (signal.SIGQUIT, 5.0),
        (signal.SIGKILL, 5.0),
    )

    def __init__(self, folder: Path, account: Account, copies: Path, *, means: lifeline.Means | None = None) -> None:
        super().__init__(folder, account, means=means)
        found = binaries.find_postgres(_data_major(self.data))
        self._bin = binaries.reachable_postgres(found, account, copies)
        self.socket_folder = folder / "run"

    @property
    def url(self) -> str:
        """For SQLAlchemy with psycopg 3."""
        return f"postgresql+psycopg://{USER}:{self.password()}@127.0.0.1:{self.port}/{DATABASE}"

    def prepare(self) -> None:
        self.socket_folder = places.socket_folder(self.folder / "run", self.account)
        if not self.data.exists():
            self._initialise()

    def command(self) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": f'"{self.socket_folder}"',  # quoted: it is a list
            "unix_socket_permissions": "0700",
            "max_connections": 200,
            "timezone": "UTC",
            "log_timezone": "UTC",
            "logging_collector": "off",
        }
        return [
            str(self._bin / "postgres"),
            "-D",
            str(self.data),
            *(word for name, value in settings.items() for word in ("-c", f"{name}={value}")),
        ]

    def probe(self) -> None:
        try:
            with self._connect() as connection:
                known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone()
                if known is None:
                    connection.execute(f'CREATE DATABASE "{DATABASE}"')
        except psycopg.OperationalError as error:
            if "password authentication failed" in str(error):
                raise EmbeddedServerError(
                    f"the password in {str(self.folder / 'password')!r} must be the one the database was made with; "
                    "put that back, or move the data folder away to begin anew"
                ) from error
            raise NotReadyError(str(error)) from error

    def clear_remains(self) -> None:
        super().clear_remains()
        # Their process is gone for sure; the number in them may by now be a stranger's and would stop the next start.
        for stale in (self.data / "postmaster.pid", *self.socket_folder.glob(".s.PGSQL.*")):
            stale.unlink(missing_ok=True)

    def stop(self) -> None:
        """End the server and remove a temporary socket folder."""
        super().stop()
        if self.socket_folder.parent != self.folder:
            shutil.rmtree(self.socket_folder, ignore_errors=True)

    def _connect(self) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user=USER,
            password=self.password(),
            dbname="postgres",
            connect_timeout=CONNECT_SECONDS,
            autocommit=True,
        )

    def _initialise(self) -> None:
        """Run initdb beside the final place and rename, so that an interrupted run leaves nothing half made."""
        fresh = self.unfinished
        shutil.rmtree(fresh, ignore_errors=True)
        self.account.give(fresh)
        with tempfile.NamedTemporaryFile("w", dir=self.folder, prefix="password.") as secret:
            os.fchown(secret.fileno(), self.account.uid, self.account.gid)
            secret.write(self.password() + "\n")
            secret.flush()
            process = self.spawn(
                [
                    self._bin / "initdb",
                    *("-D", fresh, "-U", USER, "--pwfile", secret.name),
                    *("--locale=C", "--encoding=UTF8"),
                    *("--auth-local=scram-sha-256", "--auth-host=scram-sha-256"),
                ]
            )
            try:
                status = process.wait(INITDB_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                status = process.wait()
        if status != 0:
            raise EmbeddedServerError(f"initdb ended with status {status!r}. {self._log_tail()}")
        fresh.rename(self.data)


def _data_major(data: Path) -> int | None:
    """The major version that wrote the data, None where there are none."""
    try:
        return int((data / "PG_VERSION").read_text().split(".")[0])
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise EmbeddedServerError(
            f"{str(data / 'PG_VERSION')!r} must hold a PostgreSQL version; {error}. Restore it from a copy, or move "
            "the data folder away to begin anew"
        ) from error
