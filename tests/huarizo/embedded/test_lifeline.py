from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import psutil
import pytest

from huarizo.embedded import leash, lifeline

REPOSITORY = Path(__file__).parents[3]
LINUX = sys.platform.startswith("linux")
TOUCH = shutil.which("touch")
SOON = 10.0  # seconds; it takes a tenth of one where the machine is not busy
MEANS = ["watchdog", *(["kernel"] if LINUX else [])]


def start_parent(script: str) -> tuple[subprocess.Popen[str], list[int]]:
    """Run `script` in a process of its own; the numbers on its first line of output are processes it made."""
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
    )
    return parent, [int(word) for word in parent.stdout.readline().split()]


def kill(parent: subprocess.Popen[str]) -> None:
    parent.kill()
    parent.wait()
    parent.stdout.close()


@pytest.mark.parametrize("means", MEANS)
def test_a_child_dies_with_a_parent_killed_by_sigkill(means, gone, eventually):
    parent, (child,) = start_parent(f"""
        import time
        from huarizo.embedded import lifeline
        print(lifeline.popen(["sleep", "60"], means={means!r}).pid, flush=True)
        time.sleep(60)
    """)
    time.sleep(0.3)
    assert not gone(child)
    kill(parent)
    eventually(lambda: gone(child), SOON, "the child follows its parent")


def test_a_watchdog_kills_the_group_of_a_child_that_ignores_its_signal(gone, eventually):
    parent, (child,) = start_parent("""
        import time
        from huarizo.embedded import lifeline
        stubborn = "trap '' TERM; sleep 61 & wait; sleep 62"
        print(lifeline.popen(["sh", "-c", stubborn], means="watchdog", grace=0.3).pid, flush=True)
        time.sleep(60)
    """)

    def grandchildren() -> list[int]:
        return [process.pid for process in psutil.Process(child).children() if process.name() == "sleep"]

    eventually(grandchildren, SOON, "the child has a child")
    (grandchild,) = grandchildren()
    kill(parent)
    eventually(lambda: gone(child) and gone(grandchild), SOON, "the group is killed")


def watchdogs_of(marker: str) -> list[psutil.Process]:
    return [
        process
        for process in psutil.process_iter()
        if not gone_or_zombie(process)
        and marker in process.cmdline()
        and any("leash.py" in w for w in process.cmdline())
    ]


def gone_or_zombie(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE or not process.cmdline()
    except psutil.Error:
        return True


def test_a_watchdog_leaves_when_its_ward_has_ended(eventually):
    child = lifeline.popen(["sleep", "31.4159"], means="watchdog")
    eventually(
        lambda: len(watchdogs_of("31.4159")) == 1 and psutil.Process(child.pid).name() == "sleep", SOON, "it watches"
    )
    child.kill()
    child.wait()
    eventually(lambda: not watchdogs_of("31.4159"), SOON, "the watchdog leaves")


def test_a_watchdog_does_not_hold_the_output_of_its_ward_open():
    child = lifeline.popen(["echo", "done"], means="watchdog", stdout=subprocess.PIPE, text=True)
    start = time.monotonic()
    assert child.communicate()[0] == "done\n"
    assert time.monotonic() - start < 5
    assert child.returncode == 0


def test_pipes_of_ended_children_are_closed_when_the_next_one_starts():
    for _ in range(3):
        lifeline.popen(["true"], means="watchdog").wait()
    assert len(lifeline._writers._held) == 1


@pytest.mark.parametrize("means", MEANS)
def test_a_forked_copy_of_the_parent_keeps_no_orphan_alive_and_can_make_children_itself(means, gone, eventually):
    parent, (child, copy, status) = start_parent(f"""
        import os, time
        from huarizo.embedded import lifeline
        child = lifeline.popen(["sleep", "60"], means={means!r})
        copy = os.fork()
        if copy == 0:
            status = lifeline.popen(["sh", "-c", "exit 7"], means={means!r}).wait()
            print(child.pid, os.getpid(), status, flush=True)
        time.sleep(60)
    """)
    try:
        assert status == 7
        assert not gone(child)
        kill(parent)
        eventually(lambda: gone(child), SOON, "the child follows its parent, though the copy lives")
        assert not gone(copy)
    finally:
        os.kill(copy, signal.SIGKILL)


@pytest.mark.parametrize("means", MEANS)
def test_a_child_outlives_the_thread_that_asked_for_it(means):
    made: list[subprocess.Popen] = []
    thread = threading.Thread(target=lambda: made.append(lifeline.popen(["sleep", "60"], means=means)))
    thread.start()
    thread.join()
    time.sleep(0.4)
    assert made[0].poll() is None
    made[0].kill()
    assert made[0].wait() == -signal.SIGKILL


@pytest.mark.parametrize("means", MEANS)
def test_the_returned_process_is_the_command_itself(means):
    child = lifeline.popen(["sh", "-c", "echo $$; exit 3"], means=means, stdout=subprocess.PIPE, text=True)
    assert int(child.communicate()[0]) == child.pid
    assert child.returncode == 3


def test_environment_folder_and_session_are_the_commands_own(tmp_path):
    needed = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    child = lifeline.popen(
        ["sh", "-c", "echo $COLOUR $PYTHONHASHSEED $HOME; pwd; ps -o pgid= -p $$"],
        env={**needed, "COLOUR": "red", "PYTHONHASHSEED": "5"},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    )
    colour, folder, group = child.communicate()[0].splitlines()
    assert (colour, folder, int(group)) == ("red 5", str(tmp_path), child.pid)


def test_descriptors_asked_for_are_passed_on():
    reader, writer = os.pipe()
    script = f"import os; os.write({writer}, b'passed')"
    lifeline.popen([sys.executable, "-c", script], pass_fds=[writer]).wait()
    os.close(writer)
    with os.fdopen(reader) as file:
        assert file.read() == "passed"


@pytest.mark.skipif(not LINUX, reason="reads /proc")
def test_no_signal_reaches_the_command_ignored_or_blocked():
    child = lifeline.popen(
        ["grep", "-E", "SigIgn|SigBlk", "/proc/self/status"],
        death_signal=signal.SIGINT,
        stdout=subprocess.PIPE,
        text=True,
    )
    masks = [int(line.split()[1], 16) for line in child.communicate()[0].splitlines()]
    # 32 and 33 belong to the C library, which may have them ignored; no program can ask for either.
    settable = sum(1 << (number - 1) for number in signal.valid_signals())
    assert [mask & settable for mask in masks] == [0, 0]


def test_a_missing_command_is_reported_by_the_parent():
    with pytest.raises(FileNotFoundError, match="no-such-program"):
        lifeline.popen(["no-such-program"])


def test_a_relative_command_is_looked_for_in_the_childs_folder(tmp_path):
    (tmp_path / "here").symlink_to(shutil.which("true"))
    assert lifeline.popen(["./here"], cwd=tmp_path).wait() == 0


def test_root_starts_a_child_as_another_user_without_roots_groups(other_user):
    child = lifeline.popen(["id"], user="nobody", stdout=subprocess.PIPE, text=True)
    answer = child.communicate()[0]
    assert f"uid={other_user.pw_uid}(nobody) gid={other_user.pw_gid}(" in answer
    assert "root" not in answer


@pytest.mark.parametrize("means", MEANS)
def test_a_child_that_changed_its_user_still_dies_with_its_parent(means, other_user, gone, eventually):
    parent, (child,) = start_parent(f"""
        import time
        from huarizo.embedded import lifeline
        print(lifeline.popen(["sleep", "60"], user="nobody", means={means!r}, cwd="/").pid, flush=True)
        time.sleep(60)
    """)
    eventually(lambda: psutil.Process(child).uids().real == other_user.pw_uid, SOON, "it changes its user")
    kill(parent)
    eventually(lambda: gone(child), SOON, "the child follows its parent")


def test_only_root_can_ask_for_another_user(monkeypatch):
    monkeypatch.setattr(lifeline.os, "geteuid", lambda: 1000)
    with pytest.raises(PermissionError, match="only root"):
        lifeline.popen(["true"], user="root")


def leash_with(parent: int, *command: str) -> subprocess.CompletedProcess[str]:
    options = [f"parent={parent}", "signal=15", "uid=", "gid=", "grace=1"]
    options += ["pipe="] if LINUX else [f"pipe={os.open(os.devnull, os.O_RDONLY)}"]
    return subprocess.run(
        [sys.executable, "-I", "-S", leash.__file__, *options, "--", command[0], *command],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(not LINUX, reason="drives the kernel's means")
def test_a_child_whose_parent_is_gone_before_the_tie_holds_never_runs(tmp_path):
    assert leash_with(1, TOUCH, str(tmp_path / "ran")).returncode == leash.PARENT_IS_GONE
    assert leash_with(os.getpid(), TOUCH, str(tmp_path / "ran too")).returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["ran too"]


@pytest.mark.skipif(not LINUX, reason="drives the kernel's means")
def test_a_command_that_cannot_be_executed_says_why_and_exits_126():
    answer = leash_with(os.getpid(), "/etc/passwd")
    assert answer.returncode == leash.CANNOT_EXECUTE
    assert "cannot execute '/etc/passwd'" in answer.stderr
    assert "Permission denied" in answer.stderr
