import os
import signal
import subprocess
import sys
import time

import pytest

from workers.lifetime import owner_is_dead, process_owner

CHILD = (
    "import subprocess, sys, time\n"
    "child = subprocess.Popen([sys.executable, '-c',"
    " 'from workers.lifetime import die_with_parent; import time; die_with_parent(poll_seconds=.2);"
    ' print("up", flush=True); time.sleep(60)\'], stdout=subprocess.PIPE, text=True)\n'
    "child.stdout.readline()\n"
    "print(child.pid, flush=True)\n"
    "time.sleep(60)\n"
)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().split()[2] != "Z"


def test_a_child_ends_with_a_parent_that_was_killed():
    parent = subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    assert alive(child)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(child)


def test_this_process_is_not_dead_and_a_gone_one_is():
    assert not owner_is_dead(process_owner())
    script = "from workers.lifetime import process_owner; print(process_owner())"
    gone = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip()
    assert owner_is_dead(gone)


def test_a_reused_process_id_is_another_owner():
    host, pid, started = process_owner().rsplit(":", 2)
    assert owner_is_dead(f"{host}:{pid}:{int(started) - 100}")


@pytest.mark.parametrize("owner", [None, "", "elsewhere:1:2", "nonsense"])
def test_owners_of_other_hosts_are_never_called_dead(owner):
    assert not owner_is_dead(owner)


def test_a_zombie_counts_as_dead():
    child = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from workers.lifetime import process_owner; print(process_owner(), flush=True); input()",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    owner = child.stdout.readline().strip()
    assert not owner_is_dead(owner)
    os.kill(child.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while not owner_is_dead(owner) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert owner_is_dead(owner)
    child.wait()
