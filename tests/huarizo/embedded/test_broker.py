from __future__ import annotations

import os
import signal
import socket
import stat

import psutil
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from core.errors import EmbeddedServerError
from huarizo.embedded import places
from huarizo.embedded.account import account_for
from huarizo.embedded.broker import BrokerServer


def server_over(home):
    account = account_for(home / "broker" / "data")
    places.open_home(home, account)
    return BrokerServer(home / "broker", account, home / "binaries")


@pytest.fixture
def broker(open_folder):
    server = server_over(open_folder / "home")
    server.start(None, 20.0)
    yield server
    server.stop()


def test_it_keeps_everything_evicts_nothing_and_takes_no_snapshots(servers):
    client = redis.Redis.from_url(servers.broker_url, decode_responses=True)
    asked = {name: client.config_get(name)[name] for name in ("appendonly", "maxmemory-policy", "save", "bind")}
    assert asked == {"appendonly": "yes", "maxmemory-policy": "noeviction", "save": "", "bind": "127.0.0.1"}


def test_it_answers_nobody_without_the_password(servers):
    with pytest.raises(redis.AuthenticationError):
        redis.Redis(port=servers.info.broker_port, retry=Retry(NoBackoff(), 0)).ping()


def test_the_password_is_in_private_files_and_on_no_command_line(servers):
    folder = servers.data_dir / "broker"
    password = (folder / "password").read_text()
    assert len(password) >= 32
    assert password in servers.broker_url
    assert password not in " ".join(psutil.Process(servers.info.broker_pid).cmdline())
    modes = {name: stat.S_IMODE((folder / name).stat().st_mode) for name in ("password", "server.conf", "data")}
    assert modes == {"password": 0o600, "server.conf": 0o600, "data": 0o700}


def test_what_was_queued_survives_sigkill(broker):
    client = redis.Redis.from_url(broker.url)
    client.rpush("queue", *range(5000))
    port = broker.port
    os.kill(broker.pid, signal.SIGKILL)
    assert broker.wait(5)
    broker.restart(20.0)
    assert broker.port == port
    assert client.llen("queue") == 5000


def test_it_stops_at_the_first_polite_signal(broker):
    broker.stop()
    assert broker._process.returncode == 0
    assert not broker.alive()


def test_folders_with_quotes_and_spaces_are_folders(open_folder):
    server = server_over(open_folder / 'my "own" data\\')
    server.start(None, 20.0)
    redis.Redis.from_url(server.url).set("key", 1)
    server.stop()
    assert (open_folder / 'my "own" data\\' / "broker" / "data" / "appendonlydir").is_dir()


def test_a_server_that_ends_at_once_is_a_typed_failure_with_its_last_words(open_folder, monkeypatch):
    server = server_over(open_folder / "home")
    monkeypatch.setattr(server, "command", lambda: [str(server._program), "--no-such-option", "1"])
    with pytest.raises(EmbeddedServerError, match=r"(?s)the broker ended with status 1.*no-such-option"):
        server.start(None, 20.0)


def test_a_server_that_never_answers_is_a_typed_failure(open_folder, monkeypatch):
    server = server_over(open_folder / "home")
    monkeypatch.setattr(server, "command", lambda: ["sleep", "60"])
    try:
        with pytest.raises(EmbeddedServerError, match=r"must answer within 0\.3 s"):
            server.start(None, 0.3)
    finally:
        server.stop()
    assert not server.alive()


def test_a_stolen_port_is_replaced_by_another(open_folder, monkeypatch):
    server = server_over(open_folder / "home")
    taken, launch = [], server._launch

    def steal_first(ready_seconds):
        if not taken:
            taken.append(socket.create_server(("127.0.0.1", server.port)))
        return launch(ready_seconds)

    monkeypatch.setattr(server, "_launch", steal_first)
    server.start(None, 20.0)
    try:
        assert server.port != taken[0].getsockname()[1]
        assert redis.Redis.from_url(server.url).ping()
    finally:
        server.stop()
        taken[0].close()
