"""`huarizo up`: servers, schema, API and workers on this machine, kept alive until told to stop."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from types import FrameType
from urllib.parse import urlsplit

from core.errors import ConflictError, ServiceUnavailableError
from core.settings import Settings
from huarizo.client import ApiProblem, Client
from huarizo.embedded import lifeline
from huarizo.embedded.places import make_folder
from huarizo.embedded.ports import free_port
from huarizo.embedded.supervisor import EmbeddedServers
from huarizo.service import address
from huarizo.service.commands import service_commands
from huarizo.service.devices import Device, wanted_devices
from huarizo.service.places import CODE, Places, code_environment
from huarizo.service.supervisor import Supervisor, open_log, rotate

READY_SECONDS = 120.0
MIGRATION_SECONDS = 120.0
HOME_MODE_OF_ROOT = 0o711  # the servers of a service that root starts run as another user, who must pass through
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}
Report = Callable[[str], None]


@dataclass(frozen=True)
class Servers:
    """Addresses of database and broker, and the embedded pair behind them, if any."""

    database_url: str
    broker_url: str
    embedded: EmbeddedServers | None = None

    def check(self) -> None:
        """Raise EmbeddedServerError if an embedded server is beyond help."""
        if self.embedded is not None:
            self.embedded.check()


class Stop:
    """SIGINT and SIGTERM as two events: the first asks for a drain, the second for haste."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.hurry = threading.Event()

    def signalled(self, _number: int, _frame: FrameType | None) -> None:
        """Handle one signal."""
        (self.hurry if self.asked.is_set() else self.asked).set()

    @contextlib.contextmanager
    def installed(self) -> Iterator[Stop]:
        """Handle the signals while the context lasts; what the caller ignores (nohup, background) stays ignored."""
        numbers = [n for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) != signal.SIG_IGN]
        before = [(number, signal.signal(number, self.signalled)) for number in numbers]
        try:
            yield self
        finally:
            for number, handler in before:
                signal.signal(number, handler)


def up(settings: Settings, *, report: Report, ready: Callable[[str, Places, tuple[Device, ...]], None]) -> None:
    """Run a service until SIGINT or SIGTERM, then drain it.

    Args:
        settings: the settings in force.
        report: told in one line what happens.
        ready: called once with the service's address, its folders and its devices.

    Raises:
        ConflictError: a service runs over this folder already, or the port is taken.
        EmbeddedServerError, ServiceUnavailableError: a part cannot be started, or died too often.
    """
    places, devices = Places.of(settings), wanted_devices(settings.device)
    with ExitStack() as stack:
        stop = stack.enter_context(Stop().installed())
        make_folder(places.home, HOME_MODE_OF_ROOT if os.geteuid() == 0 else 0o700)
        former = address.last(places.home)
        stack.enter_context(address.only_one(places.home))
        places.make()
        port = choose_port(settings.host, settings.port, urlsplit(former.url).port if former else None)
        url = f"http://{EVERYWHERE.get(settings.host, settings.host)}:{port}"
        address.write(places.home, address.Address(url, os.getpid()))
        servers = stack.enter_context(running_servers(settings, places, report))
        environment = child_environment(settings, places, servers, port, url)
        migrate(places, environment, stop)
        commands = service_commands(devices, drain_seconds=settings.drain_seconds, log_level=settings.log_level)
        supervisor = Supervisor(commands, logs=places.logs, environment=environment, report=report)
        stack.callback(_drain, supervisor, stop, settings.drain_seconds, report)
        if not stop.asked.is_set():
            supervisor.start()
            await_ready(url, supervisor, stop.asked)
        if not stop.asked.is_set():
            address.write(places.home, address.Address(url, os.getpid(), ready=True))
            ready(url, places, devices)
            supervisor.watch(stop.asked, check=servers.check)


@contextlib.contextmanager
def running_servers(settings: Settings, places: Places, report: Report) -> Iterator[Servers]:
    """The configured servers; what is not configured is embedded."""
    if settings.database_url and settings.broker_url:
        yield Servers(settings.database_url, settings.broker_url)
        return
    report("starting the embedded database and broker")
    with EmbeddedServers(places.home) as embedded:
        yield Servers(
            settings.database_url or embedded.database_url, settings.broker_url or embedded.broker_url, embedded
        )


def choose_port(host: str, wanted: int, former: int | None = None) -> int:
    """The port to listen on: the wanted one if it is free; for 0 the former one, else any free one.

    Raises:
        ConflictError: the port is taken.
    """
    if wanted == 0:
        return free_port(former)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does: ignore TIME_WAIT
        try:
            probe.bind((host, wanted))
        except OSError as error:
            raise ConflictError(
                f"the API needs a free port, but {host!r}:{wanted!r} is not ({error.strerror}): stop what holds it, or "
                "set HUARIZO_PORT to another, 0 for any free one"
            ) from error
    return wanted


def child_environment(settings: Settings, places: Places, servers: Servers, port: int, url: str) -> dict[str, str]:
    """What every process of the service is told: this process's variables and what was decided here."""
    return {
        **os.environ,
        **code_environment(),
        **places.environment(),
        "HUARIZO_DATABASE_URL": servers.database_url,
        "HUARIZO_BROKER_URL": servers.broker_url,
        "HUARIZO_HOST": settings.host,
        "HUARIZO_PORT": str(port),
        "HUARIZO_API_URL": url,
        "PYTHONUNBUFFERED": "1",
    }


def migrate(places: Places, environment: dict[str, str], stop: Stop) -> None:
    """Bring the schema to head, in a process of its own, which dies with this one.

    Raises:
        ServiceUnavailableError: it failed; the message ends with the last lines of its log.
    """
    log = places.logs / "migrate.log"
    rotate(log)
    with open_log(log) as file:
        argv = [sys.executable, "-m", "huarizo", "migrate"]
        process = lifeline.popen(argv, env=environment, cwd=CODE, stdout=file, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + MIGRATION_SECONDS
    while process.poll() is None:
        if stop.asked.is_set() or time.monotonic() > deadline:
            process.terminate()
            process.wait()
        time.sleep(0.02)
    if process.returncode != 0 and not stop.asked.is_set():
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-8:])
        raise ServiceUnavailableError(
            f"the schema must be brought to head within {MIGRATION_SECONDS:g} s, but the migration ended with status "
            f"{process.returncode!r}; mend what {str(log)!r} names:\n{tail}"
        )


def await_ready(url: str, supervisor: Supervisor, stop: threading.Event) -> None:
    """Return once the API says that it is ready, or was told to stop.

    Raises:
        ServiceUnavailableError: not within READY_SECONDS, or a process died too often.
    """
    deadline = time.monotonic() + READY_SECONDS
    with Client(url, timeout=5.0) as client:
        while not stop.wait(0.1):
            supervisor.tend()
            try:
                client.ready()
                return
            except (ServiceUnavailableError, ApiProblem) as error:
                if time.monotonic() > deadline:
                    raise ServiceUnavailableError(
                        f"{url!r} must be ready within {READY_SECONDS:g} s; last answer: {error}. Read api.log"
                    ) from error


def _drain(supervisor: Supervisor, stop: Stop, seconds: float, report: Report) -> None:
    stop.asked.set()  # also when an error brought us here: the next signal then asks for haste
    if any(child.pid for child in supervisor.children):
        report(f"stopping: running steps get up to {seconds:g} s (Ctrl-C again stops at once)")
    supervisor.stop(stop.hurry)
