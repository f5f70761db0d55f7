"""The pieces of `huarizo up` that need no whole service; the whole is tested with the running service."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.errors import ConflictError, ServiceUnavailableError
from core.settings import Settings
from huarizo.embedded.ports import free_port, is_free
from huarizo.service import address, up
from huarizo.service.places import Places
from huarizo.service.up import Servers, Stop, child_environment, choose_port, migrate


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen(1)
        yield int(holder.getsockname()[1])


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    for name in Settings.settings_names():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HUARIZO_HOME", str(tmp_path))
    found = Places.of(Settings())
    found.make()
    return found


def test_a_taken_port_is_refused_with_the_way_out(taken: int) -> None:
    with pytest.raises(ConflictError, match="HUARIZO_PORT") as caught:
        choose_port("127.0.0.1", taken)
    assert str(taken) in caught.value.message


def test_port_zero_takes_the_former_port_while_it_is_free(taken: int) -> None:
    free = free_port()
    assert choose_port("127.0.0.1", 0, free) == free
    chosen = choose_port("127.0.0.1", 0, taken)
    assert chosen != taken
    assert is_free(chosen)


def test_a_wanted_port_is_taken_as_it_is() -> None:
    free = free_port()
    assert choose_port("127.0.0.1", free, free + 1) == free


def test_processes_are_told_what_was_decided_here_whatever_the_caller_had_set(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUARIZO_API_URL", "http://elsewhere")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    servers = Servers("postgresql+psycopg://x", "redis://y")
    environment = child_environment(Settings(), places, servers, 4711, "http://127.0.0.1:4711")
    assert environment["HUARIZO_API_URL"] == "http://127.0.0.1:4711"
    assert environment["HUARIZO_PORT"] == "4711"
    assert environment["HUARIZO_DATABASE_URL"] == "postgresql+psycopg://x"
    assert environment["HUARIZO_BROKER_URL"] == "redis://y"
    assert environment["HUARIZO_MODEL_ROOTS"] == str(places.home / "models")
    assert environment["HF_HUB_OFFLINE"] == "1"


def test_the_first_signal_asks_for_a_drain_and_the_second_for_haste() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Stop().installed() as stop:
        signal.raise_signal(signal.SIGTERM)
        assert stop.asked.is_set()
        assert not stop.hurry.is_set()
        signal.raise_signal(signal.SIGINT)
        assert stop.hurry.is_set()
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_hangup_that_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Stop().installed() as stop:
            signal.raise_signal(signal.SIGHUP)
        assert not stop.asked.is_set()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_failed_migration_is_told_with_the_end_of_its_log(places: Places) -> None:
    url = f"postgresql+psycopg://127.0.0.1:{free_port()}/none"
    environment = {**os.environ, "HUARIZO_DATABASE_URL": url, "PYTHONPATH": str(up.CODE)}
    with pytest.raises(ServiceUnavailableError, match=r"migrate\.log"):
        migrate(places, environment, Stop())


def test_a_second_service_over_one_folder_says_where_the_first_answers(places: Places) -> None:
    with address.only_one(places.home):
        address.write(places.home, address.Address("http://127.0.0.1:4711", 4242, ready=True))
        answer = subprocess.run(
            [sys.executable, "-m", "huarizo", "up"],
            cwd=up.CODE,
            capture_output=True,
            text=True,
            check=False,
        )
    assert answer.returncode == 1
    assert answer.stdout == ""
    (line,) = answer.stderr.splitlines()
    assert line.startswith("huarizo: conflict: ")
    assert "http://127.0.0.1:4711" in line
