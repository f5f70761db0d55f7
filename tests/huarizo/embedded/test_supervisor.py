from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
import redis
import sqlalchemy

from core.errors import EmbeddedServerError
from huarizo.embedded import supervisor
from huarizo.embedded.connection import running
from huarizo.embedded.supervisor import EmbeddedServers

LINUX = sys.platform.startswith("linux")
MEANS = ["watchdog", *(["kernel"] if LINUX else [])]


def put(database_url: str, broker_url: str, value: int) -> None:
    engine = sqlalchemy.create_engine(database_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE IF NOT EXISTS kept (value int)")
        connection.execute(sqlalchemy.text("INSERT INTO kept VALUES (:value)"), {"value": value})
    engine.dispose()
    client = redis.Redis.from_url(broker_url)
    client.rpush("kept", value)
    client.close()


def values(database_url: str, broker_url: str) -> tuple[list[int], list[int]]:
    engine = sqlalchemy.create_engine(database_url)
    with engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT value FROM kept ORDER BY 1").scalars().all()
    engine.dispose()
    client = redis.Redis.from_url(broker_url)
    items = [int(item) for item in client.lrange("kept", 0, -1)]
    client.close()
    return list(rows), items


def tenants(folder: Path) -> list[int]:
    """Numbers of the processes that work somewhere below a folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd().startswith(str(folder)) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except (psutil.Error, OSError):
            continue
    return found


def test_data_and_addresses_survive_a_stop_and_a_start(home):
    with EmbeddedServers(home) as first:
        put(first.database_url, first.broker_url, 1)
        before = first.info
    assert tenants(home) == []
    assert running(home) is None
    with first as again:
        assert (again.database_url, again.broker_url) == (before.database_url, before.broker_url)
        assert again.info.postgres_pid != before.postgres_pid
        assert values(again.database_url, again.broker_url) == ([1], [1])


@pytest.mark.parametrize("means", MEANS)
def test_sigkill_of_the_supervisor_leaves_no_process_and_the_next_start_recovers_the_data(
    means, home, keeper, eventually, gone
):
    first = keeper(home, means)
    put(first.info["database_url"], first.info["broker_url"], 1)
    pids = [first.info["postgres_pid"], first.info["broker_pid"]]
    assert set(pids) <= set(tenants(home))
    first.kill()
    eventually(lambda: all(map(gone, pids)) and not tenants(home), 10, "no server without its supervisor")
    assert running(home) is None
    second = keeper(home, means)
    assert values(second.info["database_url"], second.info["broker_url"]) == ([1], [1])
    assert second.info["database_url"] == first.info["database_url"]
    assert second.leave() == 0


def test_a_start_right_after_a_sigkill_waits_for_the_orphans_to_leave(home, keeper):
    first = keeper(home)
    put(first.info["database_url"], first.info["broker_url"], 1)
    first.kill()
    with EmbeddedServers(home) as second:
        assert values(second.database_url, second.broker_url) == ([1], [1])


@pytest.mark.skipif(not LINUX, reason="freezes the orphans by making the kernel's tie useless")
def test_an_orphan_that_nobody_tied_is_ended_by_the_next_start(home, keeper, gone):
    first = keeper(home)
    put(first.info["database_url"], first.info["broker_url"], 1)
    pids = [first.info["postgres_pid"], first.info["broker_pid"]]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)  # the death signal waits as well
    first.kill()
    threading.Timer(0.5, lambda: [os.kill(pid, signal.SIGCONT) for pid in pids]).start()
    with EmbeddedServers(home) as second:
        assert all(map(gone, pids))
        assert values(second.database_url, second.broker_url) == ([1], [1])


@pytest.mark.parametrize("victim", ["postgres", "broker"])
def test_a_killed_server_is_back_on_its_port_with_its_data(victim, servers, eventually):
    put(servers.database_url, servers.broker_url, len(victim))
    before = values(servers.database_url, servers.broker_url)
    addresses = (servers.database_url, servers.broker_url)
    pid = getattr(servers.info, f"{victim}_pid")
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: answers(servers) and getattr(servers.info, f"{victim}_pid") != pid, 15, "it is back")
    assert (servers.database_url, servers.broker_url) == addresses
    assert values(*addresses) == before
    eventually(lambda: running(servers.data_dir) == servers.info, 2, "others learn the new process number")
    servers.check()


def answers(servers: EmbeddedServers) -> bool:
    try:
        values(servers.database_url, servers.broker_url)
    except (sqlalchemy.exc.OperationalError, redis.RedisError):
        return False
    return True


def test_a_server_that_keeps_dying_is_given_up_with_a_reason(home, monkeypatch, eventually):
    monkeypatch.setattr(supervisor, "MAX_RESTARTS", 1)
    with EmbeddedServers(home) as servers:
        first = servers.info.broker_pid
        os.kill(first, signal.SIGKILL)
        eventually(lambda: servers.info.broker_pid != first and answers_ping(servers), 10, "started again once")
        servers.check()
        os.kill(servers.info.broker_pid, signal.SIGKILL)
        eventually(lambda: servers._failure is not None, 10, "given up")
        with pytest.raises(EmbeddedServerError, match=r"the broker may die 1 times in 60\.0 s.*server\.log"):
            servers.check()


def answers_ping(servers: EmbeddedServers) -> bool:
    try:
        return bool(redis.Redis.from_url(servers.broker_url).ping())
    except redis.RedisError:
        return False


def test_two_folders_side_by_side_never_meet(servers, home):
    with EmbeddedServers(home) as other:
        put(servers.database_url, servers.broker_url, 100)
        put(other.database_url, other.broker_url, 200)
        assert values(other.database_url, other.broker_url) == ([200], [200])
        assert 200 not in values(servers.database_url, servers.broker_url)[0]
        mine, others = servers.info, other.info
        assert len({mine.postgres_port, mine.broker_port, others.postgres_port, others.broker_port}) == 4
        assert running(other.data_dir) == others
        assert running(servers.data_dir) == mine


def test_a_second_start_on_a_folder_in_use_is_refused_and_can_attach_instead(servers):
    second = EmbeddedServers(servers.data_dir)
    with pytest.raises(EmbeddedServerError, match=f"process {os.getpid()}, ports {servers.info.postgres_port} and"):
        second.start()
    second.stop()
    attached = running(servers.data_dir)
    assert attached == servers.info
    assert attached.database_url == servers.database_url
    assert answers(servers)


def test_addresses_are_asked_for_in_vain_before_the_start(home):
    with pytest.raises(EmbeddedServerError, match=r"call start\(\) first"):
        _ = EmbeddedServers(home).database_url


def test_a_path_too_long_for_a_socket_is_no_obstacle(home, keeper):
    home = home.rename(home.with_name("long path, with 'quotes' and commas " * 3))
    first = keeper(home)
    put(first.info["database_url"], first.info["broker_url"], 1)
    left = Path(first.info["socket_folder"])
    first.kill()
    with EmbeddedServers(home) as again:
        folder = Path(again.info.socket_folder)
        assert len(str(folder)) < 80
        assert any(folder.iterdir())
        assert values(again.database_url, again.broker_url) == ([1], [1])
        assert not left.exists()
    assert not folder.exists()


def test_an_ordinary_user_runs_everything_itself(ordinary_user, open_folder, keeper):
    home = open_folder / "user" / ".local" / "share" / "huarizo" / "clone"
    (open_folder / "user").mkdir(mode=0o700)
    os.chown(open_folder / "user", ordinary_user.uid, ordinary_user.uid)
    first = keeper(home, "", ordinary_user)
    put(first.info["database_url"], first.info["broker_url"], 1)
    assert {path.stat().st_uid for path in home.rglob("*")} == {ordinary_user.uid}
    assert first.leave() == 0
    # Root, over data that a user made, runs them as that user.
    with EmbeddedServers(home) as by_root:
        assert psutil.Process(by_root.info.postgres_pid).uids().real == ordinary_user.uid
        assert values(by_root.database_url, by_root.broker_url) == ([1], [1])


def test_wheels_that_nobody_else_can_read_work_the_first_time(locked_wheels, home):
    with EmbeddedServers(home) as servers:
        put(servers.database_url, servers.broker_url, 1)
        programs = [psutil.Process(pid).exe() for pid in (servers.info.postgres_pid, servers.info.broker_pid)]
    assert all(program.startswith(str(home / "binaries")) for program in programs)


def test_a_start_that_fails_leaves_no_process_and_no_lock(monkeypatch, home):
    monkeypatch.setattr(supervisor.BrokerServer, "command", lambda self: ["false"])
    servers = EmbeddedServers(home)
    with pytest.raises(EmbeddedServerError, match="the broker ended with status 1"):
        servers.start()
    assert tenants(home) == []
    monkeypatch.undo()
    with servers:
        assert answers_ping(servers)


def test_a_stop_does_not_wait_for_a_server_that_will_not_answer(home, monkeypatch, eventually):
    with EmbeddedServers(home) as servers:
        monkeypatch.setattr(supervisor.BrokerServer, "command", lambda self: ["sleep", "60"])
        pid = servers.info.broker_pid
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: servers.info.broker_pid != pid, 5, "a restart is under way")
        start = time.monotonic()
    assert time.monotonic() - start < 10


def test_a_second_stop_leaves_a_successor_alone(home):
    first = EmbeddedServers(home).start()
    first.stop()
    with EmbeddedServers(home) as second:
        first.stop()
        assert answers_ping(second)
        assert running(home) == second.info


def test_files_that_root_left_behind_are_a_typed_failure_for_their_user(ordinary_user, open_folder, keeper):
    home = open_folder / "home"
    home.mkdir()
    os.chown(home, ordinary_user.uid, ordinary_user.uid)
    (home / "lock").touch(mode=0o600)
    with pytest.raises(AssertionError, match=r"EmbeddedServerError: every file under the data folder .*lock'"):
        keeper(home, "", ordinary_user)
