"""The bell: a Celery message that says only `look`. Safe to lose and safe to repeat; Postgres holds the truth."""

from __future__ import annotations

import logging
import os
import time
from typing import Any

import redis
from celery import Celery

from core.errors import ServiceUnavailableError
from core.records import Device, StepKind

TASK_NAME = "huarizo.step"
SOCKET_SECONDS = 1.0
#: After a failure the bell stays silent so long: a dead broker costs a transaction one timeout, not one per message.
SILENT_SECONDS = 5.0

_log = logging.getLogger(__name__)


def queue_of(kind: StepKind, device: Device) -> str:
    """The queue whose workers can run such a step."""
    if kind in (StepKind.INSPECT_MODEL, StepKind.EXPLAIN):
        return "inspect"
    return "control" if kind is StepKind.ADVANCE or device is Device.NONE else device.value


class Bell:
    """Rings at one broker. A broker that does not answer is logged; the reconciler rings again."""

    def __init__(self, broker_url: str) -> None:
        self._broker_url = broker_url
        self._app: Any = None
        self._pid = 0
        self._silent_until = 0.0

    def ring(self, queue: str, kind: str, id: str) -> None:
        """Send one message. Never raises; waits two seconds at most."""
        if time.monotonic() < self._silent_until:
            return
        try:
            self._sender().send_task(TASK_NAME, args=(str(kind), id), queue=queue, retry=False, ignore_result=True)
        except Exception as error:
            self._silent_until = time.monotonic() + SILENT_SECONDS
            self.close()
            _log.warning("the broker does not answer (%s): silent for %s s", error, SILENT_SECONDS)

    def ping(self) -> None:
        """Return if the broker answers.

        Raises:
            ServiceUnavailableError: it does not, within two seconds.
        """
        try:
            with redis.Redis.from_url(
                self._broker_url, socket_timeout=SOCKET_SECONDS, socket_connect_timeout=SOCKET_SECONDS
            ) as client:
                client.ping()
        except (redis.RedisError, ValueError) as error:
            raise ServiceUnavailableError(
                f"the broker must answer, but: {type(error).__name__}; see that it runs, then try again"
            ) from error

    def close(self) -> None:
        """Drop the connection; the next ring opens another."""
        app, self._app = self._app, None
        if app is not None and self._pid == os.getpid():
            app.close()

    def _sender(self) -> Any:
        """A Celery application of this process: a forked child opens its own connection."""
        if self._app is None or self._pid != os.getpid():
            self._pid = os.getpid()
            self._app = _application(self._broker_url)
        return self._app


def _application(broker_url: str) -> Any:
    app = Celery("huarizo.bell", broker=broker_url, backend=None, set_as_current=False)
    app.conf.update(
        broker_connection_retry=False,
        broker_connection_timeout=SOCKET_SECONDS,
        broker_pool_limit=2,
        task_ignore_result=True,
        broker_transport_options={
            "socket_timeout": SOCKET_SECONDS,
            "socket_connect_timeout": SOCKET_SECONDS,
            "retry_on_timeout": False,
            "max_retries": 0,
        },
    )
    return app
