from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from core.errors import EmbeddedServerError
from huarizo.embedded import connection
from huarizo.embedded.connection import ConnectionInfo, FolderLock, running

REPOSITORY = Path(__file__).parents[3]
INFO = ConnectionInfo("postgresql+psycopg://u:secret@h/d", "redis://:hidden@h/0", 1, 2, 3, 4, 5, "/run")
HOLD = """
import sys
from pathlib import Path
from huarizo.embedded.connection import FolderLock
lock = FolderLock(Path(sys.argv[1]))
lock.acquire()
print(flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=REPOSITORY
    )
    process.stdout.readline()
    yield process
    process.kill()
    process.communicate()


def test_nothing_runs_in_a_folder_that_is_absent_or_was_never_started(tmp_path):
    assert running(tmp_path / "absent") is None
    assert running(tmp_path) is None


def test_the_state_is_true_only_while_its_writer_lives(tmp_path, holder):
    assert running(tmp_path) is None  # still starting
    connection.write_state(tmp_path, INFO)
    assert running(tmp_path) == INFO
    holder.kill()
    holder.wait()
    assert running(tmp_path) is None
    assert connection.last_state(tmp_path) == INFO


def test_a_folder_in_use_is_refused_with_the_process_and_the_ports(tmp_path, holder):
    with pytest.raises(EmbeddedServerError, match=f"process {holder.pid}, still starting"):
        FolderLock(tmp_path).acquire()
    connection.write_state(tmp_path, INFO)
    with pytest.raises(EmbeddedServerError, match=f"process {holder.pid}, ports 3 and 5.*HUARIZO_HOME"):
        FolderLock(tmp_path).acquire()
    holder.communicate("")
    FolderLock(tmp_path).acquire()


def test_a_released_lock_can_be_taken_again(tmp_path):
    lock = FolderLock(tmp_path)
    lock.acquire()
    lock.release()
    lock.release()
    FolderLock(tmp_path).acquire()


def test_a_damaged_state_counts_as_none(tmp_path):
    (tmp_path / "servers.json").write_text('{"database_url": 1')
    assert connection.last_state(tmp_path) is None
    (tmp_path / "servers.json").write_text('{"of_another_version": 1}')
    assert connection.last_state(tmp_path) is None


def test_passwords_are_in_a_private_file_and_not_in_the_repr(tmp_path):
    connection.write_state(tmp_path, INFO)
    assert stat.S_IMODE((tmp_path / "servers.json").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["servers.json"]
    assert "secret" not in repr(INFO)
    assert "hidden" not in repr(INFO)


def test_another_users_servers_are_a_typed_refusal(open_folder, ordinary_user, keeper):
    FolderLock(open_folder).acquire()
    with pytest.raises(AssertionError, match=r"EmbeddedServerError: .* belong to another user"):
        keeper(open_folder, "look", ordinary_user)


def test_a_private_file_belongs_to_whom_it_is_written_for(tmp_path, other_user):
    connection.write_private(tmp_path / "file", "text", owner=(other_user.pw_uid, other_user.pw_gid))
    assert (tmp_path / "file").stat().st_uid == other_user.pw_uid
    assert os.listdir(tmp_path) == ["file"]
