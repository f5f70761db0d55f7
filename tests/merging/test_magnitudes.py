"""The order of sizes and the cuts read from it, with and without room to keep it, against a stable sort."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from core.errors import TooLargeError
from merging import magnitudes
from merging.kernels import Block
from merging.magnitudes import (
    EVERYTHING,
    NOTHING,
    Sizes,
    change_sizes,
    counts,
    counts_within,
    cut_at,
    kept_order,
    largest,
    members,
    place_of,
    rank_within,
    share,
    within,
)
from merging.statistics import Statistics

CPU = torch.device("cpu")
GENERATOR = np.random.default_rng(4)
ARRAYS = {
    "apart": GENERATOR.normal(size=5001),
    "ties": GENERATOR.integers(-3, 4, size=3000),
    "zeros": np.where(GENERATOR.random(2500) < 0.9, 0.0, GENERATOR.normal(size=2500)),
    "equal": np.full(1700, -0.25),
    "tiny": GENERATOR.normal(size=999) * 1e-42,
    "wide": GENERATOR.normal(size=1200) * 10.0 ** GENERATOR.integers(-30, 30, size=1200),
    "one": np.array([3.0]),
}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Several blocks, and no tensor that is sorted for being small."""
    monkeypatch.setattr(magnitudes, "BLOCK", 700)
    monkeypatch.setattr(magnitudes, "SMALL", 0)


def sizes_of(array, room=1 << 20, name="x"):
    values = torch.as_tensor(np.asarray(array, dtype=np.float32))
    both = values, torch.zeros_like(values)
    return change_sizes(lambda: both, (name, "zero"), values.numel(), CPU, Statistics(room))


def descending(array):
    """Places by descending magnitude, equal ones in the order of their index."""
    return np.argsort(-np.abs(np.asarray(array, dtype=np.float32)), kind="stable")


def kept(array, cut):
    values = torch.as_tensor(np.asarray(array, dtype=np.float32))
    mask = largest(values, torch.arange(values.numel(), dtype=torch.int32), cut.bits, cut.until)
    assert set(mask.unique().tolist()) <= {0, -1}
    return np.flatnonzero(mask.numpy())


@pytest.mark.parametrize("room", [0, 1 << 20])
@pytest.mark.parametrize("name", ARRAYS)
def test_a_cut_keeps_exactly_the_largest_and_of_equal_ones_the_first(name, room):
    array = ARRAYS[name]
    sizes, order = sizes_of(array, room), descending(array)
    for count in {0, 1, 2, array.size // 3, array.size // 2, array.size - 1, array.size}:
        assert np.array_equal(kept(array, cut_at(sizes, count)), np.sort(order[:count])), count


def test_with_room_the_order_is_kept_and_without_only_counts_are():
    array = ARRAYS["apart"]
    assert np.array_equal(kept_order(sizes_of(array)).numpy(), descending(array))
    assert kept_order(sizes_of(array, 4 * array.size - 1)) is None
    assert kept_order(sizes_of(array, 4 * array.size)) is not None


def test_an_order_does_not_push_out_what_is_kept_already():
    statistics = Statistics(4 * 5000)
    one, other = (torch.randn(3000, generator=torch.Generator().manual_seed(i)) for i in range(2))
    for name, values in (("one", one), ("other", other)):
        both = values, torch.zeros_like(values)
        sizes = change_sizes(lambda both=both: both, (name, "zero"), 3000, CPU, statistics)
        assert (kept_order(sizes) is not None) == (name == "one")
    assert statistics.has_room(("order", ("change", "one", "zero")), 1 << 40)


def test_the_tensors_are_read_when_something_is_first_asked_and_counted_once():
    reads = []

    def load():
        reads.append(1)
        return torch.arange(2000.0), torch.zeros(2000)

    statistics = Statistics(0)
    first = change_sizes(load, ("a", "b"), 2000, CPU, statistics)
    assert not reads
    found = counts(first)
    assert len(reads) == 1
    assert np.array_equal(counts(change_sizes(load, ("a", "b"), 2000, CPU, statistics)), found)
    assert len(reads) == 1


@pytest.mark.parametrize("room", [0, 1 << 20])
@pytest.mark.parametrize("name", ARRAYS)
def test_sizes_are_counted_by_their_high_and_their_low_bits(name, room):
    sizes = sizes_of(ARRAYS[name], room)
    bits = np.abs(np.asarray(ARRAYS[name], dtype=np.float32)).view(np.int32)
    tops = np.bincount(bits >> 16, minlength=1 << 15)
    assert np.array_equal(counts(sizes), tops)
    for top in np.unique(bits >> 16)[:3]:
        values, numbers = counts_within(sizes, int(top))
        expected = np.unique(bits[bits >> 16 == top] & 0xFFFF, return_counts=True)
        assert np.array_equal(values, expected[0])
        assert np.array_equal(numbers, expected[1])


@pytest.mark.parametrize("room", [0, 1 << 20])
@pytest.mark.parametrize("name", ["apart", "ties", "equal"])
def test_members_are_a_stretch_of_the_order(name, room):
    array = ARRAYS[name]
    sizes, order = sizes_of(array, room), descending(array)
    for start, stop in ((0, 1), (0, array.size), (300, 1500), (array.size - 5, array.size), (7, 7)):
        assert np.array_equal(members(sizes, start, stop).numpy(), order[start:stop])


def test_the_place_of_one_among_equals():
    array = ARRAYS["ties"]
    equal = np.flatnonzero(np.abs(array) == 2)
    bits = int(np.float32(2).view(np.int32))
    for nth in (1, 2, 100, equal.size):
        assert place_of(sizes_of(array), bits, nth) == equal[nth - 1]


def test_the_place_of_the_nth_largest_of_counted_things():
    ascending = np.array([2, 0, 3, 1])
    assert [rank_within(ascending, count) for count in range(1, 7)] == [(3, 1), (2, 1), (2, 2), (2, 3), (0, 1), (0, 2)]


def test_a_share_is_at_least_one_element_unless_it_is_nothing():
    assert [share(10, density) for density in (0.0, 1e-9, 0.1, 0.55, 0.999, 1.0)] == [0, 1, 1, 5, 9, 10]
    assert share(1, 0.3) == 1


def test_the_cuts_that_keep_everything_and_nothing():
    values = np.array([0.0, -0.0, 1.0, -3e38, np.inf])
    assert kept(values, EVERYTHING).tolist() == [0, 1, 2, 3, 4]
    assert kept(values, NOTHING).tolist() == []


def test_a_block_of_a_step_finds_its_cut_among_the_words():
    array = np.float32([1, -2, 2, 0, 3])
    cut = cut_at(sizes_of(array), 2)
    words = torch.tensor([7, *cut.words], dtype=torch.int64).to(torch.int32).unbind()
    values, index = torch.as_tensor(array), torch.arange(5, dtype=torch.int32)
    block = Block((), None, (), (), words, index, torch.tensor(0, dtype=torch.int32))
    assert within(block, values, 1).tolist() == [0, -1, 0, 0, -1]
    assert within(block, values.double(), 1).tolist() == [0, -1, 0, 0, -1]


def test_tensors_that_32_bit_indices_cannot_count_are_refused():
    def read(chosen):
        raise AssertionError("nothing has to be read for that")

    with pytest.raises(TooLargeError, match="2147483648"):
        cut_at(Sizes("huge", 1 << 31, CPU, read, Statistics()), 5)


def test_a_cut_of_a_kept_order_is_a_look_up_and_takes_no_time():
    values = torch.randn(1 << 20, generator=torch.Generator().manual_seed(0))
    both = values, torch.zeros_like(values)
    sizes = change_sizes(lambda: both, ("x", "zero"), values.numel(), CPU, Statistics())
    cut_at(sizes, 1)
    seconds = []
    for count in range(1000, 1_000_000, 99_991):
        start = time.process_time()
        cut_at(sizes, count)
        seconds.append(time.process_time() - start)
    assert min(seconds) < 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_one_size_is_the_one_that_all_are_read_with_to_the_last_bit(dtype):
    generator = torch.Generator().manual_seed(11)
    scales = [10.0 ** torch.randint(-6, 4, (4000,), generator=generator) for _ in range(2)]
    pair = [torch.randn(4000, generator=generator) * scale for scale in scales]
    tensor, base = (each.to(dtype) for each in pair)
    sizes = change_sizes(lambda: (tensor, base), ("a", "b"), 4000, CPU, Statistics())
    assert [sizes.one(place) for place in range(4000)] == sizes.read(slice(0, 4000)).tolist()


def test_a_size_beyond_the_largest_number_is_infinite_however_it_is_read():
    tensor = torch.tensor([3e38])
    sizes = change_sizes(lambda: (tensor, -tensor), ("a", "b"), 1, CPU, Statistics())
    assert sizes.one(0) == float(sizes.read(slice(0, 1))) == float("inf")
