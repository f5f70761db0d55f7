from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
import redis

from core.records import Device, StepKind
from store.bell import SILENT_SECONDS, Bell, queue_of
from tests.store.makers import new_job


def _queue(servers, name):
    """The messages of a queue, as (task, args), oldest first; the queue is emptied."""
    with redis.Redis.from_url(servers.broker_url) as broker:
        raw = broker.lrange(name, 0, -1)
        broker.delete(name)
    messages = [json.loads(message) for message in reversed(raw)]
    return [(m["headers"]["task"], json.loads(base64.b64decode(m["body"]))[0]) for m in messages]


@pytest.fixture
def frozen_broker(servers):
    """A broker that accepts connections and never answers."""
    pid = servers.info.broker_pid
    os.kill(pid, signal.SIGSTOP)
    yield servers.broker_url
    os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize(
    ("kind", "device", "queue"),
    [
        (StepKind.ADVANCE, Device.NONE, "control"),
        (StepKind.INSPECT_MODEL, Device.NONE, "inspect"),
        (StepKind.EXPLAIN, Device.NONE, "inspect"),
        (StepKind.INSPECT_TASK, Device.CPU, "cpu"),
        (StepKind.RUN_TRIAL, Device.CUDA, "cuda"),
        (StepKind.CONFIRM, Device.NONE, "control"),
    ],
)
def test_each_step_has_its_queue(kind, device, queue):
    assert queue_of(kind, device) == queue


def test_a_message_carries_kind_and_id_to_the_queue(servers):
    bell = Bell(servers.broker_url)
    bell.ring("bell-test", "run_trial", "step_1")
    bell.ring("bell-test", StepKind.ADVANCE, "step_2")
    bell.close()
    assert _queue(servers, "bell-test") == [
        ("huarizo.step", ["run_trial", "step_1"]),
        ("huarizo.step", ["advance", "step_2"]),
    ]


def test_a_bell_rings_again_after_it_was_closed(servers):
    bell = Bell(servers.broker_url)
    bell.close()
    bell.ring("bell-test", "advance", "a")
    bell.close()
    bell.ring("bell-test", "advance", "b")
    bell.close()
    assert len(_queue(servers, "bell-test")) == 2


def test_a_dead_broker_is_logged_and_costs_no_time(caplog):
    bell = Bell("redis://127.0.0.1:1/0")
    started = time.monotonic()
    for number in range(50):
        bell.ring("cpu", "run_trial", str(number))
    assert time.monotonic() - started < 2
    assert [record.levelname for record in caplog.records if record.name == "store.bell"] == ["WARNING"]


def test_a_frozen_broker_costs_one_timeout_however_many_bells_there_are(frozen_broker):
    bell = Bell(frozen_broker)
    started = time.monotonic()
    for number in range(50):
        bell.ring("cpu", "run_trial", str(number))
    assert time.monotonic() - started < 2.5


def test_a_broker_that_hangs_up_costs_no_time():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        bell = Bell(f"redis://127.0.0.1:{port}/0")
        started = time.monotonic()
        bell.ring("cpu", "run_trial", "x")
    assert time.monotonic() - started < 2.5


def test_a_bell_is_heard_again_once_the_broker_is_back(servers, monkeypatch):
    clock = time.monotonic()
    monkeypatch.setattr("store.bell.time.monotonic", lambda: clock)
    bell = Bell(servers.broker_url)
    os.kill(servers.info.broker_pid, signal.SIGSTOP)
    try:
        bell.ring("bell-test", "advance", "lost")
    finally:
        os.kill(servers.info.broker_pid, signal.SIGCONT)
    bell.ring("bell-test", "advance", "silent")
    clock += SILENT_SECONDS + 1
    bell.ring("bell-test", "advance", "heard")
    bell.close()
    heard = [id for _, (_, id) in _queue(servers, "bell-test")]
    assert "silent" not in heard
    assert heard[-1] == "heard"


def test_a_transaction_rings_at_the_real_broker(servers, database):
    with database.transaction() as s:
        _queue(servers, "control")
        new_job(s)
    assert [task for task, _ in _queue(servers, "control")] == ["huarizo.step"]


def test_the_store_can_be_imported_without_torch_and_optuna():
    code = (
        "import sys, pkgutil, importlib, store\n"
        "for module in pkgutil.iter_modules(store.__path__): importlib.import_module('store.' + module.name)\n"
        "print(sorted({'torch', 'optuna', 'lm_eval', 'datasets', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
