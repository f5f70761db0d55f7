"""What each process of a service is: its command line, its environment, how it is stopped."""

from __future__ import annotations

import os
import secrets
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, cast

from core.errors import InvalidInputError
from huarizo.service.devices import CPU, Device, wanted_devices

Role = Literal["api", "control", "inspect", "device"]
WORKER_ROLES = ("control", "inspect", "device")
#: Seconds between the signals that follow a drain that took too long.
HARDER_SECONDS = 5.0
API_SECONDS = 8.0
#: Until models are read on a GPU, control and inspect must not hold memory there.
NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}


@dataclass(frozen=True)
class Command:
    """One process to keep alive.

    Attributes:
        name: unique within a service; also the name of its log.
        argv: the command line.
        environment: variables besides those every process gets.
        stop_signals: what to send in turn to end it, with the seconds each is given; SIGKILL to its group follows.
    """

    name: str
    role: Role
    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_signals: Sequence[tuple[signal.Signals, float]] = ((signal.SIGTERM, HARDER_SECONDS),)


def service_commands(devices: Sequence[Device], *, drain_seconds: float, log_level: str) -> tuple[Command, ...]:
    """Everything one service runs besides its servers: the API, a control and an inspect worker, one per device."""
    api = Command("api", "api", (sys.executable, "-m", "api"), NO_GPU, ((signal.SIGTERM, API_SECONDS),))
    stop = ((signal.SIGTERM, drain_seconds), (signal.SIGQUIT, HARDER_SECONDS))
    workers: list[tuple[str, Role, Device]] = [("control", "control", CPU), ("inspect", "inspect", CPU)]
    workers += [(f"device-{device.name}", "device", device) for device in devices]
    return (
        api,
        *(
            Command(name, role, worker_argv(role, device, log_level=log_level), _environment(role, device), stop)
            for name, role, device in workers
        ),
    )


def worker_argv(role: str, device: Device = CPU, *, log_level: str = "INFO") -> tuple[str, ...]:
    """The Celery command line of one worker, whose queue is its role or its kind of device.

    The worker's name is unique, since two workers of one name confuse the broker.
    """
    name = device.kind if role == "device" else role
    tag = f"{name}{device.number}" if name == "cuda" else name
    # Steps that may run on any device are rung for on the queue of the CPU: a GPU worker answers there too.
    queue = "cuda,cpu" if name == "cuda" else name
    return (
        *(sys.executable, "-m", "celery", "-A", "workers.app", "worker"),
        *("--queues", queue, "--concurrency", "1", "--pool", "prefork", "-Ofair", "--prefetch-multiplier", "1"),
        *("--without-gossip", "--without-mingle", "--without-heartbeat"),
        *("--hostname", f"{tag}-{os.getpid()}-{secrets.token_hex(3)}@%h", "--loglevel", log_level),
    )


def worker_command(role: str, wish: str, *, log_level: str = "INFO") -> Command:
    """The command of `huarizo worker`: exactly one worker.

    Raises:
        InvalidInputError: an unknown role, or a device that is not there or names several GPUs.
    """
    if role not in WORKER_ROLES:
        raise InvalidInputError(f"a worker's role is one of {', '.join(WORKER_ROLES)}, but got {role!r}: set --role")
    device = _one(wanted_devices(wish), wish) if role == "device" else CPU
    argv = worker_argv(role, device, log_level=log_level)
    return Command(role, cast(Role, role), argv, _environment(role, device))


def _one(devices: tuple[Device, ...], wish: str) -> Device:
    if len(devices) != 1:
        names = ", ".join(f"cuda:{device.number}" for device in devices)
        raise InvalidInputError(
            f"one worker drives one device, but {wish!r} means {names} here: start a worker for each, with --device"
        )
    return devices[0]


def _environment(role: str, device: Device) -> dict[str, str]:
    return device.environment if role == "device" else dict(NO_GPU)
