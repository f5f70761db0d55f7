import signal
import subprocess
import sys
import time

from workers import stopping


def test_a_stretch_has_one_turn_at_least_and_ends_with_its_time(monkeypatch):
    monkeypatch.setattr(stopping, "STRETCH_SECONDS", 0.0)
    assert sum(1 for _ in stopping.stretch()) == 1
    monkeypatch.setattr(stopping, "STRETCH_SECONDS", 0.05)
    began = time.monotonic()
    assert sum(1 for _ in stopping.stretch()) > 1
    assert 0.05 <= time.monotonic() - began < 5


def test_a_draining_worker_ends_after_the_turn_it_is_in():
    turns = stopping.stretch()
    next(turns)
    stopping.DRAINING.set()
    try:
        assert list(turns) == []
        assert sum(1 for _ in stopping.stretch()) == 1
    finally:
        stopping.DRAINING.clear()


def test_a_pool_child_can_end_its_workers_main_process():
    script = (
        "import os, signal\n"
        "signal.signal(signal.SIGTERM, signal.SIG_DFL)\n"
        "from workers import stopping\n"
        "if os.fork() == 0:\n"
        "    stopping.end_worker()\n"
        "    os._exit(0)\n"
        "signal.sigtimedwait([], 60)\n"
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == -signal.SIGTERM
