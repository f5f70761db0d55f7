"""What `huarizo doctor` says of database, broker and service, against real ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from core.settings import Settings
from huarizo.checks import Check
from huarizo.checks.servers import servers as checks_of
from huarizo.checks.servers import service
from huarizo.embedded.ports import free_port, hold_port
from huarizo.service import address
from huarizo.service.places import Places

if TYPE_CHECKING:
    from huarizo.embedded.supervisor import EmbeddedServers


@pytest.fixture(autouse=True)
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.settings_names():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HUARIZO_HOME", str(tmp_path))


def test_servers_that_answer_with_the_newest_schema_are_fine(
    servers: EmbeddedServers, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = _checks(database_url, servers.broker_url, monkeypatch)
    assert [(check.name, check.status) for check in found] == [("database", "ok"), ("broker", "ok")]


def test_an_old_schema_and_a_broker_that_is_away_are_told_with_the_way_out(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = f"redis://127.0.0.1:{free_port()}/0"
    database, bell = _checks(empty_database_url, broker, monkeypatch)
    assert database.status == "fail"
    assert "huarizo migrate" in database.mend
    assert (bell.status, bell.mend) == ("fail", "start it, or correct HUARIZO_BROKER_URL")


def test_a_database_that_is_away_is_told_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"postgresql+psycopg://127.0.0.1:{free_port()}/none"
    database, _ = _checks(url, f"redis://127.0.0.1:{free_port()}/0", monkeypatch)
    assert database.status == "fail"
    assert "Traceback" not in database.found


def test_without_any_server_the_embedded_programs_are_looked_for() -> None:
    (check,) = checks_of(Settings())
    assert check.name == "servers"
    assert check.status == "ok"
    assert "huarizo up" in check.found


def test_half_a_configuration_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUARIZO_BROKER_URL", f"redis://127.0.0.1:{free_port()}/0")
    database, _ = checks_of(Settings())
    assert (database.name, database.status) == ("database", "fail")


def test_a_service_that_nobody_started_is_no_failure_unless_one_was_named(monkeypatch: pytest.MonkeyPatch) -> None:
    places, port = Places.of(Settings()), free_port()
    monkeypatch.setattr(address, "api_url", lambda _settings: f"http://127.0.0.1:{port}")
    monkeypatch.setenv("HUARIZO_PORT", str(port))
    check = service(Settings(), places)
    assert (check.status, check.found) == ("ok", f"not running; port {port} is free for it")
    with hold_port(port):
        monkeypatch.setattr(address, "api_url", lambda _settings: f"http://127.0.0.1:{free_port()}")
        assert service(Settings(), places).mend == "HUARIZO_PORT=0 huarizo up"
    monkeypatch.setenv("HUARIZO_API_URL", "http://127.0.0.1:1")
    assert service(Settings(), places).status == "fail"


def _checks(database_url: str, broker_url: str, monkeypatch: pytest.MonkeyPatch) -> list[Check]:
    monkeypatch.setenv("HUARIZO_DATABASE_URL", database_url)
    monkeypatch.setenv("HUARIZO_BROKER_URL", broker_url)
    return list(checks_of(Settings()))
