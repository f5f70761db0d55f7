"""Commands find the service of their data folder, and two services never share one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from core.errors import ConflictError, ServiceUnavailableError
from core.settings import Settings
from huarizo.service import address
from huarizo.service.address import Address, api_url, last, only_one, running, server_urls

HERE = Address("http://127.0.0.1:4711", 4242, ready=True)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in Settings.settings_names():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HUARIZO_HOME", str(tmp_path))
    monkeypatch.setattr(address, "LOCK_PATIENCE_SECONDS", 0.1)
    return tmp_path


def test_a_running_service_is_found_and_a_stopped_one_is_not(home: Path) -> None:
    assert running(home) is None
    with only_one(home):
        address.write(home, HERE)
        assert running(home) == HERE
    assert running(home) is None


def test_what_a_service_said_outlives_it_so_that_the_next_can_take_its_port(home: Path) -> None:
    assert last(home) is None
    with only_one(home):
        address.write(home, HERE)
    assert last(home) == HERE
    (home / "up.json").write_text("{")
    assert last(home) is None


def test_the_state_of_a_killed_service_is_not_believed(home: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from huarizo.service import address\n"
        "home = Path(sys.argv[1])\n"
        "with address.only_one(home):\n"
        "    address.write(home, address.Address('http://127.0.0.1:1', 1)); os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(home)], cwd=Path(__file__).parents[3], check=False)
    assert (home / "up.json").exists()
    assert running(home) is None
    with only_one(home):
        assert running(home) is None  # not the dead one's, while the new one has yet to say


def test_a_second_service_is_refused_with_the_address_of_the_first(home: Path) -> None:
    with only_one(home):
        with pytest.raises(ConflictError, match="still starting"), only_one(home):
            pass
        address.write(home, HERE)
        with pytest.raises(ConflictError, match=r"process 4242 .* http://127\.0\.0\.1:4711"), only_one(home):
            pass
        assert running(home) == HERE


def test_the_state_is_closed_to_other_users(home: Path) -> None:
    with only_one(home):
        address.write(home, HERE)
        assert (home / "up.json").stat().st_mode & 0o077 == 0


def test_commands_prefer_the_setting_then_the_service_here_then_the_default(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert api_url(Settings()) == "http://127.0.0.1:8000"
    with only_one(home):
        address.write(home, HERE)
        assert api_url(Settings()) == HERE.url
        monkeypatch.setenv("HUARIZO_API_URL", "http://elsewhere:1")
        assert api_url(Settings()) == "http://elsewhere:1"


def test_without_any_database_the_way_out_is_named() -> None:
    with pytest.raises(ServiceUnavailableError, match="HUARIZO_DATABASE_URL"):
        server_urls(Settings())


def test_configured_servers_win_over_embedded_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUARIZO_DATABASE_URL", "postgresql+psycopg://db/x")
    monkeypatch.setenv("HUARIZO_BROKER_URL", "redis://broker/0")
    assert server_urls(Settings()) == ("postgresql+psycopg://db/x", "redis://broker/0")
    monkeypatch.delenv("HUARIZO_BROKER_URL")
    assert server_urls(Settings()) == ("postgresql+psycopg://db/x", None)


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is closed to root")
def test_a_folder_that_is_closed_to_this_user_holds_no_service(home: Path) -> None:
    with only_one(home):
        (home / "up.lock").chmod(0)
        assert running(home) is None
