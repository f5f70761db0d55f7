"""The processes of a service: their command lines and what they see of the GPUs."""

from __future__ import annotations

import signal
import sys

import pytest

from core.errors import InvalidInputError
from huarizo.service import commands
from huarizo.service.commands import service_commands, worker_argv, worker_command
from huarizo.service.devices import CPU, Device

GPU_1 = Device("cuda", 1, "1", "NVIDIA H200")


def option(argv: tuple[str, ...], name: str) -> str:
    return argv[argv.index(name) + 1]


def test_a_worker_is_one_celery_process_with_one_child_on_the_queue_of_its_role() -> None:
    argv = worker_argv("control", log_level="DEBUG")
    assert argv[:6] == (sys.executable, "-m", "celery", "-A", "workers.app", "worker")
    assert option(argv, "--queues") == "control"
    assert option(argv, "--concurrency") == "1"
    assert option(argv, "--pool") == "prefork"
    assert option(argv, "--prefetch-multiplier") == "1"
    assert option(argv, "--loglevel") == "DEBUG"
    assert {"-Ofair", "--without-gossip", "--without-mingle", "--without-heartbeat"} <= set(argv)


def test_celery_itself_accepts_the_command_line() -> None:
    from celery.bin.worker import worker

    context = worker.make_context("worker", list(worker_argv("device", GPU_1)[6:]), obj=_app_stub())
    assert context.params["queues"] == ["cuda", "cpu"]
    assert context.params["concurrency"] == 1


def test_no_two_workers_share_a_name() -> None:
    names = {option(worker_argv("control"), "--hostname") for _ in range(20)}
    assert len(names) == 20


def test_a_device_worker_listens_to_its_kind_and_sees_its_own_gpu_alone() -> None:
    gpu = service_commands([GPU_1], drain_seconds=9.0, log_level="INFO")[-1]
    assert gpu.name == "device-cuda-1"
    assert option(gpu.argv, "--queues") == "cuda,cpu"
    assert gpu.environment == {"HUARIZO_DEVICE": "cuda", "CUDA_VISIBLE_DEVICES": "1"}
    cpu = service_commands([CPU], drain_seconds=9.0, log_level="INFO")[-1]
    assert option(cpu.argv, "--queues") == "cpu"
    assert cpu.environment == {"HUARIZO_DEVICE": "cpu", "CUDA_VISIBLE_DEVICES": ""}


def test_a_service_is_an_api_a_control_and_an_inspect_worker_and_one_worker_per_device() -> None:
    found = service_commands([CPU, GPU_1], drain_seconds=9.0, log_level="INFO")
    assert [(command.name, command.role) for command in found] == [
        ("api", "api"),
        ("control", "control"),
        ("inspect", "inspect"),
        ("device-cpu", "device"),
        ("device-cuda-1", "device"),
    ]
    assert all(command.environment["CUDA_VISIBLE_DEVICES"] == "" for command in found[:3])


def test_workers_are_asked_to_finish_within_the_drain_before_anything_harder() -> None:
    *_, worker = service_commands([CPU], drain_seconds=9.0, log_level="INFO")
    assert worker.stop_signals[0] == (signal.SIGTERM, 9.0)
    assert worker.stop_signals[1][0] == signal.SIGQUIT


@pytest.mark.parametrize("role", ["api", "gpu", ""])
def test_a_worker_of_an_unknown_role_is_refused(role: str) -> None:
    with pytest.raises(InvalidInputError, match="control, inspect, device"):
        worker_command(role, "cpu")


def test_one_worker_never_takes_two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = (Device("cuda", 0, "0"), GPU_1)
    monkeypatch.setattr(commands, "wanted_devices", lambda _wish: pair)
    with pytest.raises(InvalidInputError, match="cuda:0, cuda:1"):
        worker_command("device", "cuda")


def _app_stub() -> object:
    from celery import Celery
    from celery.bin.base import CLIContext

    return CLIContext(app=Celery("x"), no_color=True, workdir=None)
