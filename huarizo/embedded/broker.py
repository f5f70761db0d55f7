"""The embedded broker: Valkey (or Redis) that writes every command to disk and never evicts a key."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from core.errors import EmbeddedServerError
from huarizo.embedded import binaries, lifeline
from huarizo.embedded.account import Account
from huarizo.embedded.connection import write_private
from huarizo.embedded.server import NotReadyError, ServerProcess

CONNECT_SECONDS = 1.0


class BrokerServer(ServerProcess):
    """Valkey over `folder/data`."""

    name = "the broker"
    process_names = ("valkey-server", "redis-server")
    stop_signals: ClassVar[Sequence[tuple[signal.Signals, float]]] = ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0))

    def __init__(self, folder: Path, account: Account, copies: Path, *, means: lifeline.Means | None = None) -> None:
        super().__init__(folder, account, means=means)
        self._program = binaries.reachable_broker(binaries.find_broker(), account, copies)

    @property
    def url(self) -> str:
        """For Celery and redis-py."""
        return f"redis://:{self.password()}@127.0.0.1:{self.port}/0"

    def prepare(self) -> None:
        self.account.give(self.data)

    def command(self) -> list[str]:
        # In a file, because every user of the machine can read a command line.
        settings = self.folder / "server.conf"
        folder = str(self.data).replace("\\", "\\\\").replace('"', '\\"')
        lines = [
            "bind 127.0.0.1",
            f"port {self.port}",
            f"requirepass {self.password()}",
            f'dir "{folder}"',
            "daemonize no",
            "appendonly yes",
            'save ""',
            "maxmemory-policy noeviction",
        ]
        write_private(settings, "\n".join(lines) + "\n", owner=(self.account.uid, self.account.gid))
        return [str(self._program), str(settings)]

    def probe(self) -> None:
        client = redis.Redis(
            host="127.0.0.1",
            port=self.port,
            password=self.password(),
            socket_connect_timeout=CONNECT_SECONDS,
            socket_timeout=CONNECT_SECONDS,
            retry=Retry(NoBackoff(), 0),  # whoever starts the server asks again, and looks whether it still lives
        )
        try:
            client.ping()
        except redis.AuthenticationError as error:
            raise EmbeddedServerError(
                f"another Redis answers on port {self.port!r} of 127.0.0.1 and refuses our password: {error}. Stop it"
            ) from error
        except redis.RedisError as error:  # refused, or still reading its log from disk
            raise NotReadyError(str(error)) from error
        finally:
            client.close()
