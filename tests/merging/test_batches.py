"""Tables: every element once and under its own index, many tensors at a time where they lie in order."""

from __future__ import annotations

import math

import pytest
import torch

from merging import batches, blocks
from merging.batches import Task, grid, laid, tables
from merging.compiled import Compiler
from merging.kernels import Block, Inputs, Step, combination
from merging.memory import in_rows

NUMBERS = (0.3, 0.7)


def inputs_of(tensors, shape=None, base=None, peaks=()):
    return Inputs(
        tensors=tuple(tensors),
        shape=shape or (tensors[0].numel(),),
        name="weight",
        base=base,
        params={},
        source_params=({},) * len(tensors),
        keys=(),
        content=tuple(str(place) for place in range(len(tensors))),
        peaks=peaks,
    )


def task_of(tensors, step=None, shape=None, out=None, **options):
    out = torch.full_like(tensors[0], math.nan) if out is None else out
    return Task(step or Step(combination, NUMBERS), inputs_of(tensors, shape, **options), out, 1.0)


def by_index(block: Block) -> torch.Tensor:
    """Formula: the index and the words, so that each can be told from the result."""
    return block.index.to(torch.float32) + block.words[0].to(torch.float32) + 0.0 * block.others[0]


def scaled_by_fields(block: Block) -> torch.Tensor:
    """Formula: the source times every field."""
    result = block.others[0]
    for field in block.fields:
        result = result * field
    return result


@pytest.fixture
def narrow(monkeypatch):
    """Rows of at most 64 elements, so that small tensors are cut as large ones are."""
    monkeypatch.setattr(batches, "WIDTH", 64)
    batches._parts.cache_clear()
    yield
    batches._parts.cache_clear()


@pytest.mark.parametrize("limit", [1, 100, 10**9])
@pytest.mark.parametrize("size", [1, 2, 63, 64, 65, 127, 128, 640, 641, 4099])
def test_every_element_is_computed_once_and_knows_its_index(narrow, size, limit):
    done = torch.zeros(size)
    one = task_of([torch.ones(size)], Step(by_index, (), (7,), indexed=True), out=done)
    for table in tables([one], limit):
        out, source = table.tensors
        assert out.shape == source.shape
        assert out.shape[0] == 1 or out.numel() <= limit
        out += table.starts + torch.arange(out.shape[1]) + table.words
    assert torch.equal(done, torch.arange(size) + 7.0)


@pytest.mark.parametrize("size", [1, 65, 640, 4099])
def test_a_formula_gives_the_bytes_of_the_blocks_and_its_own_numbers_to_every_tensor(narrow, size):
    generator = torch.Generator().manual_seed(size)
    made = [in_rows([((size,), torch.float32)] * 3, torch.device("cpu")) for _ in range(3)]
    for tensor in (*made[0], *made[1]):
        tensor.copy_(torch.randn(size, generator=generator))
    steps = [Step(combination, (0.1 * i, 1.0 - 0.2 * i)) for i in range(3)]
    tasks = [task_of(pair, step, out=out) for *pair, out, step in zip(*made, steps, strict=True)]
    Compiler("never").run(tasks)
    for task in tasks:
        alone = Task(task.step, task.inputs, torch.empty(size), 1.0)
        blocks.run(alone)
        assert torch.equal(task.out, alone.out)


def test_tensors_that_follow_one_another_are_rows_of_one_table():
    made = [in_rows([((32, 4), torch.float32)] * 5, torch.device("cpu")) for _ in range(3)]
    tasks = [task_of([a.view(-1), b.view(-1)], out=out.view(-1)) for a, b, out in zip(*made, strict=True)]
    (table,) = tables(tasks[::-1], 10**9)
    assert list(table.tasks) == tasks
    assert [tensor.shape for tensor in table.tensors] == [(5, 128)] * 3
    # Without the third, whose place is left out, there are two runs.
    assert [len(table.tasks) for table in tables(tasks[:2] + tasks[3:], 10**9)] == [2, 2]


def test_tensors_are_not_joined_across_memory_that_only_happens_to_be_adjacent():
    whole = torch.zeros(4, 64)
    apart = [torch.from_numpy(whole.numpy()[row]) for row in range(4)]
    joined, separate = [whole[0], whole[1]], [apart[2], apart[3]]
    outs = in_rows([((64,), torch.float32)] * 4, torch.device("cpu"))
    tasks = [task_of([source], out=out) for source, out in zip(joined + separate, outs, strict=True)]
    assert sorted(len(table.tasks) for table in tables(tasks, 10**9)) == [1, 1, 2]


def test_a_source_that_all_of_them_share_keeps_them_apart():
    base = torch.zeros(64)
    made = [in_rows([((64,), torch.float32)] * 3, torch.device("cpu")) for _ in range(2)]
    tasks = [task_of([source, base], out=out) for source, out in zip(*made, strict=True)]
    assert [len(table.tasks) for table in tables(tasks, 10**9)] == [1, 1, 1]


@pytest.mark.parametrize("shapes", [[(30, 1)], [(1, 50)], [(50,)], [(30, 50)], [(30, 1), (30, 50)], [(1,)], [(1, 1)]])
def test_fields_of_rows_of_columns_and_of_every_element_are_spread_as_they_broadcast(shapes):
    generator = torch.Generator().manual_seed(1)
    source = torch.randn(30, 50, generator=generator)
    fields = tuple(torch.randn(shape, generator=generator) for shape in shapes)
    task = task_of([source.view(-1)], Step(scaled_by_fields, fields=fields), shape=(30, 50))
    Compiler("never").run([task])
    expected = source
    for field in fields:
        expected = expected * field
    assert torch.equal(task.out.view(30, 50), expected)


def test_a_field_that_is_spread_along_some_of_the_first_dimensions_only_is_left_to_the_blocks():
    inputs = inputs_of([torch.zeros(24)], (2, 3, 4))
    assert laid(torch.zeros(1, 3, 4), inputs) is None
    assert laid(torch.zeros(2, 3, 1), inputs).shape == (6, 1)
    assert grid(inputs) == (6, 4)
    field = torch.arange(12.0).view(1, 3, 4)
    task = task_of([torch.ones(24)], Step(scaled_by_fields, fields=(field,)), shape=(2, 3, 4))
    Compiler("never").run([task])
    assert torch.equal(task.out.view(2, 3, 4), field.expand(2, 3, 4))


@pytest.mark.parametrize(
    ("dtype", "largest"), [(torch.float32, 3.4e38), (torch.bfloat16, 3.3e38), (torch.float16, 6.5e4)]
)
def test_only_a_result_that_no_rounding_can_carry_over_the_edge_goes_unchecked(dtype, largest):
    tensors = [torch.zeros(4, dtype=dtype)] * 2
    for peak, safe in ((largest / 4, True), (largest, False), (math.inf, False)):
        assert task_of(tensors, peaks=(peak, peak)).safe is safe
    assert not task_of(tensors).safe
