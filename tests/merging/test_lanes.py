from __future__ import annotations

import ctypes
import threading
import time
from types import SimpleNamespace

import pytest
import torch

from merging.lanes import M_TRIM_THRESHOLD, Job, _hold_freed_memory, spread


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_every_item_is_worked_on_once_whatever_the_number_of_lanes():
    for lanes in (1, 2, 5):
        assert sorted(spread(lambda item: item * item, range(50), lanes)) == [i * i for i in range(50)]


def test_two_lanes_work_at_the_same_time_each_on_one_core():
    met = threading.Barrier(2, timeout=30)
    threads = torch.get_num_threads()

    def work(item):
        met.wait()
        return torch.get_num_threads()

    assert spread(work, range(2), 2) == [1, 1]
    assert torch.get_num_threads() == threads


def test_the_first_error_stops_the_others_and_is_raised():
    done: list[int] = []

    def work(item):
        if item == 3:
            raise ValueError("three")
        time.sleep(0.01)
        done.append(item)

    with pytest.raises(ValueError, match="three"):
        spread(work, range(200), 2)
    assert len(done) < 100


def test_items_are_made_when_they_are_wanted_while_others_are_worked_on():
    seen = threading.Event()

    def items():
        yield from (0, 1)
        assert seen.wait(30)
        yield 2

    def work(item):
        seen.set()
        return item

    assert sorted(spread(work, items(), 2)) == [0, 1, 2]


@pytest.mark.parametrize("lanes", [1, 2])
def test_an_error_of_the_items_is_raised_once_nobody_works(lanes):
    busy: set[int] = set()

    def items():
        yield from range(4)
        raise ValueError("four")

    def work(item):
        busy.add(item)
        time.sleep(0.01)
        busy.remove(item)

    with pytest.raises(ValueError, match="four"):
        spread(work, items(), lanes)
    assert not busy


def test_there_are_no_more_lanes_than_items_where_these_can_be_counted():
    threads = spread(lambda _: (threading.get_ident(), torch.get_num_threads()), [0], 5)
    assert threads == [(threading.get_ident(), torch.get_num_threads())]


def test_after_an_interrupt_nobody_works_on_and_torch_has_its_threads_again(two_threads):
    here, done = threading.get_ident(), []

    def work(item):
        if threading.get_ident() == here:
            raise KeyboardInterrupt
        time.sleep(0.01)
        done.append(item)

    with pytest.raises(KeyboardInterrupt):
        spread(work, iter(range(200)), 3)
    found = len(done)
    time.sleep(0.05)
    assert len(done) == found < 100
    assert torch.get_num_threads() == 2
    assert sorted(spread(lambda item: item, range(9), 3)) == list(range(9))


def test_what_an_interrupt_leaves_open_is_closed_before_the_next_job(two_threads, monkeypatch):
    begun, go, done = threading.Event(), threading.Event(), []
    here = threading.get_ident()

    def work(item):
        if threading.get_ident() == here:
            assert begun.wait(30)
            return
        begun.set()
        assert go.wait(30)
        done.append(item)

    def interrupted(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Job, "close", interrupted)
        with pytest.raises(KeyboardInterrupt):
            spread(work, range(2), 2)
    assert torch.get_num_threads() == 1
    threading.Timer(0.05, go.set).start()
    assert spread(lambda item: (item, len(done)), [5], 1) == [(5, 1)]
    assert torch.get_num_threads() == 2


def test_no_graph_is_kept():
    leaf = torch.ones(3, requires_grad=True)
    assert all(not found.requires_grad for found in spread(lambda _: leaf * 2, range(4), 2))


@pytest.mark.parametrize("said", [None, "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"])
def test_freed_memory_is_held_unless_the_environment_has_its_own_say(monkeypatch, said):
    asked: dict[int, int] = {}
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(mallopt=asked.__setitem__))
    for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)
    if said is not None:
        monkeypatch.setenv(said, "1")
    _hold_freed_memory.__wrapped__()
    assert (M_TRIM_THRESHOLD in asked) == (said is None)


def test_other_c_libraries_are_left_alone(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace())
    assert _hold_freed_memory.__wrapped__() is None
