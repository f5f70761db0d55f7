"""Start the embedded PostgreSQL and broker together, keep them alive, stop them cleanly.

    with EmbeddedServers(data_home()) as servers:
        os.environ["..."] = servers.database_url

Whoever stops this process, even with SIGKILL, stops the servers: see `lifeline`. The next start recovers the data.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from core.errors import EmbeddedServerError
from huarizo.embedded import connection, lifeline, places
from huarizo.embedded.account import Account, account_for
from huarizo.embedded.broker import BrokerServer
from huarizo.embedded.connection import ConnectionInfo
from huarizo.embedded.postgres import PostgresServer
from huarizo.embedded.server import ServerProcess

READY_SECONDS = 120.0  # a large write-ahead log is replayed before the first answer
WATCH_SECONDS = 0.2
MAX_RESTARTS, RESTART_WINDOW_SECONDS = 5, 60.0
FIRST_BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS = 0.1, 5.0


class EmbeddedServers:
    """Both servers over one data folder, for one process at a time.

    A server that dies is started again on its port, at most `MAX_RESTARTS` times in `RESTART_WINDOW_SECONDS`; after
    that `check` raises, and so does everything that needs the server.
    """

    def __init__(
        self, data_dir: Path, *, means: lifeline.Means | None = None, ready_seconds: float = READY_SECONDS
    ) -> None:
        self.data_dir = data_dir.absolute()
        self._means = means
        self._ready_seconds = ready_seconds
        self._lock = connection.FolderLock(self.data_dir)
        self._servers: tuple[PostgresServer, BrokerServer] | None = None
        self._watchers: list[threading.Thread] = []
        self._stopping = threading.Event()
        self._failure: EmbeddedServerError | None = None
        self._state_lock = threading.Lock()

    def start(self) -> Self:
        """Start both and return once both answer.

        Raises:
            EmbeddedServerError: no server program, a folder in use, closed or of another version, or a server that
                does not start.
        """
        try:
            account = account_for(self.data_dir / "postgres" / "data")
            places.open_home(self.data_dir, account)
            self._lock.acquire()
        except OSError as error:
            raise _closed_files(self.data_dir, error) from error
        self._stopping.clear()
        self._failure = None
        try:
            self._start_both(account)
        except BaseException as error:
            self.stop()
            if isinstance(error, OSError):
                raise _closed_files(self.data_dir, error) from error
            raise
        return self

    def _start_both(self, account: Account) -> None:
        former = connection.last_state(self.data_dir)
        connection.forget_state(self.data_dir)
        _remove_socket_folder(former, self.data_dir, account.uid)
        copies = self.data_dir / "binaries"
        postgres = PostgresServer(self.data_dir / "postgres", account, copies, means=self._means)
        broker = BrokerServer(self.data_dir / "broker", account, copies, means=self._means)
        self._servers = (postgres, broker)
        ports = (None, None) if former is None else (former.postgres_port, former.broker_port)
        _in_parallel(
            lambda: postgres.start(ports[0], self._ready_seconds),
            lambda: broker.start(ports[1], self._ready_seconds),
        )
        self._write_state()
        self._keep_alive(postgres, broker)

    def _keep_alive(self, *servers: ServerProcess) -> None:
        self._watchers = [
            threading.Thread(target=self._watch, args=(server,), name=f"watch {server.name}", daemon=True)
            for server in servers
        ]
        for watcher in self._watchers:
            watcher.start()

    def stop(self) -> None:
        """Stop both cleanly and let the folder go; without effect if they do not run."""
        self._stopping.set()
        for server in self._servers or ():
            server.abandon()
        for watcher in self._watchers:
            watcher.join()
        # Forgotten before the lock is: a second `stop` must not touch the servers of whoever starts here next.
        servers, self._servers, self._watchers = self._servers, None, []
        try:
            if servers is not None:
                _in_parallel(*(server.stop for server in servers))
        finally:
            self._lock.release()

    def check(self) -> None:
        """Pass while both servers are kept alive.

        Raises:
            EmbeddedServerError: one of them died too often to be started again.
        """
        if self._failure is not None:
            raise self._failure

    @property
    def database_url(self) -> str:
        """`postgresql+psycopg://...`, password included."""
        return self.info.database_url

    @property
    def broker_url(self) -> str:
        """`redis://...`, password included."""
        return self.info.broker_url

    @property
    def info(self) -> ConnectionInfo:
        """Addresses, ports and process numbers as of now.

        Raises:
            EmbeddedServerError: not started.
        """
        if self._servers is None:
            raise EmbeddedServerError("embedded servers have addresses only once started; call start() first")
        postgres, broker = self._servers
        return ConnectionInfo(
            database_url=postgres.url,
            broker_url=broker.url,
            supervisor_pid=os.getpid(),
            postgres_pid=postgres.pid,
            postgres_port=postgres.port,
            broker_pid=broker.pid,
            broker_port=broker.port,
            socket_folder=str(postgres.socket_folder),
        )

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _write_state(self) -> None:
        with self._state_lock:
            connection.write_state(self.data_dir, self.info)

    def _watch(self, server: ServerProcess) -> None:
        """Start `server` again whenever it dies, until told to stop or it has died too often."""
        deaths: deque[float] = deque()
        last_error: Exception | None = None
        while not self._stopping.is_set():
            if not server.wait(WATCH_SECONDS):
                continue
            deaths.append(time.monotonic())
            while deaths[-1] - deaths[0] > RESTART_WINDOW_SECONDS:
                deaths.popleft()
            if len(deaths) > MAX_RESTARTS:
                self._failure = _given_up(server, last_error)
                return
            backoff = min(FIRST_BACKOFF_SECONDS * 2 ** (len(deaths) - 1), LONGEST_BACKOFF_SECONDS)
            if self._stopping.wait(backoff):
                return
            try:
                server.restart(self._ready_seconds)
                self._write_state()
            except (EmbeddedServerError, OSError) as error:  # a full disk, say: the next try may find room
                last_error = error


def _closed_files(data_dir: Path, error: OSError) -> EmbeddedServerError:
    return EmbeddedServerError(
        f"every file under the data folder {str(data_dir)!r} must be open to uid {os.geteuid()!r}; {error}. "
        f"Run as the user that made it, or set {places.HOME_VARIABLE} to another folder"
    )


def _given_up(server: ServerProcess, last: Exception | None) -> EmbeddedServerError:
    reason = f" Last: {last}" if last is not None else ""
    return EmbeddedServerError(
        f"{server.name} may die {MAX_RESTARTS!r} times in {RESTART_WINDOW_SECONDS!r} s; it died once more and is left "
        f"dead. Read {str(server.folder / 'server.log')!r}, then start again.{reason}"
    )


def _remove_socket_folder(former: ConnectionInfo | None, data_dir: Path, uid: int) -> None:
    """Clear the temporary socket folder of a supervisor that was killed."""
    if former is None:
        return
    folder = Path(former.socket_folder)
    if data_dir in folder.parents or not folder.name.startswith("huarizo-") or folder.is_symlink():
        return
    if folder.is_dir() and folder.stat().st_uid == uid:
        shutil.rmtree(folder, ignore_errors=True)


def _in_parallel(*actions: Callable[[], None]) -> None:
    """Run all to their end, then raise the first error, if any."""
    with ThreadPoolExecutor(len(actions)) as pool:
        futures = [pool.submit(action) for action in actions]
    for future in futures:
        future.result()
