from __future__ import annotations

import os
import signal
import stat
import subprocess
from pathlib import Path

import psutil
import psycopg
import pytest

from core.errors import EmbeddedServerError
from huarizo.embedded import places
from huarizo.embedded.account import account_for
from huarizo.embedded.postgres import PostgresServer

READY_SECONDS = 60.0


def server_over(home: Path) -> PostgresServer:
    account = account_for(home / "postgres" / "data")
    places.open_home(home, account)
    return PostgresServer(home / "postgres", account, home / "binaries")


@pytest.fixture
def started(home):
    """A server over a copy of data made before."""
    server = server_over(home)
    server.start(None, READY_SECONDS)
    yield server
    server.stop()


def connect(url: str, **changes: str) -> psycopg.Connection:
    return psycopg.connect(url.replace("+psycopg", ""), connect_timeout=5, **changes)


def test_text_is_utf8_in_the_c_locale_and_time_is_utc(servers):
    with connect(servers.database_url) as connection:
        answers = [
            connection.execute(f"SHOW {name}").fetchone()[0]
            for name in ("server_encoding", "lc_messages", "timezone", "fsync", "password_encryption")
        ]
        collation = connection.execute("SELECT datcollate FROM pg_database WHERE datname = 'huarizo'").fetchone()[0]
    assert answers == ["UTF8", "C", "UTC", "on", "scram-sha-256"]
    assert collation == "C"


def test_no_door_is_open_without_the_password(servers):
    for host in ("127.0.0.1", servers.info.socket_folder):
        with pytest.raises(psycopg.OperationalError, match="password"):
            connect(servers.database_url, host=host, password="wrong")
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(host=host, port=servers.info.postgres_port, user="huarizo", dbname="huarizo")
        connect(servers.database_url, host=host).close()


def test_it_listens_on_the_loopback_address_alone(servers):
    listening = [
        connection.laddr
        for connection in psutil.Process(servers.info.postgres_pid).net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening == [("127.0.0.1", servers.info.postgres_port)]


def test_what_holds_secrets_is_private(servers):
    folder = servers.data_dir / "postgres"
    modes = {name: stat.S_IMODE((folder / name).stat().st_mode) for name in ("password", "data", "run", "server.log")}
    assert modes == {"password": 0o600, "data": 0o700, "run": 0o700, "server.log": 0o600}
    assert not [path.name for path in folder.iterdir() if path.name.startswith("password.")]


def test_root_keeps_its_own_files_out_of_the_servers_hands(servers, other_user):
    owners = {path.name: path.stat().st_uid for path in (servers.data_dir / "postgres").iterdir()}
    nobody = other_user.pw_uid
    assert owners == {"password": 0, "server.log": 0, "data": nobody, "run": nobody}
    assert psutil.Process(servers.info.postgres_pid).uids().real == nobody


def test_an_interrupted_initdb_leaves_nothing_in_the_way(open_folder):
    server = server_over(open_folder / "home")
    part = server.folder / "data.part"
    part.mkdir()
    (part / "PG_VERSION").write_text("18\n")
    server.start(None, READY_SECONDS)
    server.stop()
    assert not part.exists()
    assert (server.data / "global").is_dir()


def test_a_failed_initdb_is_a_typed_failure_with_its_words(open_folder, monkeypatch):
    monkeypatch.setattr("huarizo.embedded.postgres.USER", "pg_forbidden")
    server = server_over(open_folder / "home")
    with pytest.raises(EmbeddedServerError, match=r"(?s)initdb ended with status 1.*pg_"):
        server.start(None, READY_SECONDS)
    assert not server.data.exists()


def test_a_stale_pid_file_that_names_a_living_stranger_is_no_obstacle(started):
    port = started.port
    os.kill(started.pid, signal.SIGKILL)
    assert started.wait(5)
    stranger = subprocess.Popen(["sleep", "60"], **({"user": "nobody"} if os.geteuid() == 0 else {}))
    try:
        pid_file = started.data / "postmaster.pid"
        lines = pid_file.read_text().splitlines()
        pid_file.write_text("\n".join([str(stranger.pid), *lines[1:]]) + "\n")
        started.restart(READY_SECONDS)
        assert started.port == port
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_lost_password_is_a_typed_failure_that_says_where_it_belongs(started):
    started.stop()
    (started.folder / "password").write_text("another")
    with pytest.raises(EmbeddedServerError, match=r"postgres/password' must be the one"):
        started.start(None, READY_SECONDS)


def test_data_of_another_major_version_are_left_alone(open_folder):
    home = open_folder / "home"
    data = home / "postgres" / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("9.6\n")
    with pytest.raises(EmbeddedServerError, match=r"PostgreSQL 9 .*HUARIZO_PG_BIN"):
        server_over(home)
    (data / "PG_VERSION").write_text("damaged\n")
    with pytest.raises(EmbeddedServerError, match="must hold a PostgreSQL version"):
        server_over(home)
    assert [path.name for path in data.iterdir()] == ["PG_VERSION"]


def test_an_older_postgres_of_ones_own_works_and_its_data_stay_with_it(open_folder, monkeypatch):
    older = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if (path / "initdb").exists()]
    if not older:
        pytest.skip("no packaged PostgreSQL on this machine")
    monkeypatch.setenv("HUARIZO_PG_BIN", str(older[0]))
    server = server_over(open_folder / "home")
    server.start(None, READY_SECONDS)
    with connect(server.url) as connection:
        version = connection.execute("SHOW server_version_num").fetchone()[0]
    server.stop()
    assert int(version) // 10000 == int(older[0].parent.name)
    monkeypatch.delenv("HUARIZO_PG_BIN")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(EmbeddedServerError, match=f"data of PostgreSQL {older[0].parent.name} need"):
        server_over(open_folder / "home")
