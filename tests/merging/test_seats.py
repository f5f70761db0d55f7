"""Seats and layouts: from the second candidate on only values are new, and the bytes are those of a first one."""

from __future__ import annotations

import weakref

import pytest
import torch

from merging import batches, compute
from merging.batches import Layouts, Task, tables
from merging.compiled import Compiler
from merging.kernels import Inputs, Method, Step, combination
from merging.memory import in_rows
from merging.methods import methods
from merging.plan import Leaf, TensorPlan
from merging.seats import Seat

CPU = torch.device("cpu")


def kernel(inputs):
    """The sources times their weights, all of them the `weight` of the tensor."""
    return Step(combination, (inputs.number("weight"),) * len(inputs.tensors))


def planned(weight, name="w", size=64):
    return TensorPlan(
        name=name,
        shape=(size,),
        method="linear",
        version=1,
        sources=(Leaf("m", name, torch.float32),),
        base=None,
        params={"weight": weight},
        source_params=({}, {}),
        scale=1.0,
        keys=(),
        dtype=torch.float32,
        site=b"site",
    )


def seats_of(count, size=64, *, by_values=False):
    """Seats whose sources and results lie one after another."""
    left, right, outs = (in_rows([((size,), torch.float32)] * count, CPU) for _ in range(3))
    generator = torch.Generator().manual_seed(3)
    for tensor in (*left, *right):
        tensor.normal_(generator=generator)
    found = []
    for place, (one, other, out) in enumerate(zip(left, right, outs, strict=True)):
        content = (f"a{place}", f"b{place}")
        inputs = Inputs((one, other), (size,), f"w{place}", None, {"weight": 0.0}, ({}, {}), (), content)
        found.append(Seat(inputs, out, Method(methods()["linear"].info, kernel, by_values=by_values)))
    return found


def test_a_task_has_the_values_of_its_plan_and_the_memory_of_its_seat():
    (seat,) = seats_of(1)
    first, second = seat.task(planned(0.25), {}), seat.task(planned(0.75), {})
    assert (first.step.numbers, second.step.numbers) == ((0.25, 0.25), (0.75, 0.75))
    assert first.out.data_ptr() == second.out.data_ptr()
    assert first.seat == second.seat == seat.number
    assert seats_of(1)[0].number != seat.number


def test_tensors_with_the_same_values_share_a_step_where_their_method_looks_at_nothing_else():
    one, other = seats_of(2, by_values=True)
    first, second = planned(0.25), planned(0.75)
    # Plans of one group hold the same values, not only equal ones.
    beside = TensorPlan(**{**first.__dict__, "name": "beside"})
    steps = {}
    tasks = [one.task(first, steps), other.task(beside, steps), other.task(second, steps)]
    assert tasks[0].step is tasks[1].step
    assert [task.step.numbers for task in tasks] == [(0.25, 0.25), (0.25, 0.25), (0.75, 0.75)]
    assert [id(task.inputs) for task in tasks] == [id(one._inputs), id(other._inputs), id(other._inputs)]
    # Values that nobody else holds stay as long as the steps, or others might be taken for them.
    for number in range(100):
        assert one.task(planned(float(number)), steps).step.numbers == (number, number)
    separate, apart = seats_of(2)
    assert separate.task(first, steps).step is not apart.task(beside, steps).step


def test_methods_that_share_steps_look_at_values_alone():
    shared = {name for name, method in methods().items() if method.by_values}
    assert shared == {"linear", "task_arithmetic"}
    for name in shared:
        method = methods()[name]
        values = {spec.name: spec.default for spec in method.info.params if spec.scope != "source"}
        own = {spec.name: 0.3 for spec in method.info.params if spec.scope == "source"}
        base, given = (2, (own, own, {})) if method.info.needs_base else (None, (own, own, own))
        steps = []
        for size, number in ((64, 1.0), (3, -7.0)):
            tensors = tuple(torch.full((size,), number * place) for place in range(3))
            inputs = Inputs(tensors, (size,), f"w{size}", base, values, given, (), ("a", "b", "c"))
            steps.append(method.kernel(inputs))
        assert steps[0] == steps[1]


def test_every_candidate_of_one_layout_gets_the_bytes_that_its_own_numbers_give():
    seats, layouts = seats_of(7), Layouts()
    for number in range(3):
        tasks = [seat.task(planned(0.1 * place + number), {}) for place, seat in enumerate(seats)]
        Compiler("never").run(tasks, layouts)
        for task in tasks:
            one, other = task.inputs.tensors
            weight = torch.tensor(task.step.numbers[0], dtype=torch.float32)
            assert torch.equal(task.out, one * weight + other * weight)


def test_a_layout_is_worked_out_once_and_gives_the_same_tables(monkeypatch):
    seats, layouts, asked = seats_of(5), Layouts(), []
    real = batches._runs
    monkeypatch.setattr(batches, "_runs", lambda tasks: asked.append(len(tasks)) or real(tasks))
    for number in range(3):
        tasks = [seat.task(planned(float(number)), {}) for seat in seats]
        (found,) = layouts.tables(tasks, 10**9)
        (expected,) = tables(tasks, 10**9)
        assert list(found.tasks) == list(expected.tasks)
        assert torch.equal(found.numbers, expected.numbers)
        assert [t.data_ptr() for t in found.tensors] == [t.data_ptr() for t in expected.tensors]
    # Three times by `tables` itself, once by the layouts.
    assert asked == [5] * 4
    layouts.clear()
    list(layouts.tables(tasks, 10**9))
    assert asked == [5] * 5


def test_some_of_the_tensors_have_a_layout_of_their_own():
    seats, layouts = seats_of(6), Layouts()
    every = [seat.task(planned(1.0), {}) for seat in seats]
    assert sum(table.elements for table in layouts.tables(every, 10**9)) == 6 * 64
    assert [len(table.tasks) for table in layouts.tables(every[:2] + every[4:], 10**9)] == [2, 2]


def test_tasks_without_a_seat_and_those_with_sparse_fields_are_laid_out_anew():
    (seat,), layouts = seats_of(1), Layouts()
    task = seat.task(planned(1.0), {})
    alone = Task(task.step, task.inputs, task.out, 1.0)
    fields = Task(Step(combination, (1.0, 1.0), fields=(torch.ones(1),)), task.inputs, task.out, 1.0, seat=task.seat)
    for each in (alone, fields):
        assert [table.elements for table in layouts.tables([each], 10**9)] == [64]
    assert not layouts._known


def with_fields(seats, fields):
    tasks = [seat.task(planned(1.0), {}) for seat in seats]
    steps = [Step(combination, (1.0, 1.0), fields=(field,)) for field in fields]
    return [Task(step, task.inputs, task.out, 1.0, seat=task.seat) for step, task in zip(steps, tasks, strict=True)]


def test_dense_fields_share_a_table_where_they_follow_one_another_and_no_layout_keeps_them():
    seats, layouts = seats_of(4), Layouts()
    for rows in (torch.arange(256.0).view(4, 64), torch.arange(256.0, 512.0).view(4, 64)):
        for _ in range(2):
            (table,) = layouts.tables(with_fields(seats, rows), 10**9)
            assert torch.equal(table.tensors[-1], rows)
        first, second = layouts.tables(with_fields(seats, rows), 128)
        assert torch.equal(torch.cat([first.tensors[-1], second.tensors[-1]]), rows)
    scattered = [torch.full((64,), float(place)) for place in range(4)]
    found = [table.tensors[-1] for table in layouts.tables(with_fields(seats, scattered), 10**9)]
    assert sorted(float(field[0, 0]) for field in found) == [0.0, 1.0, 2.0, 3.0]
    gone = weakref.ref(scattered[0])
    del scattered, found
    assert gone() is None


def test_no_more_layouts_are_remembered_than_there_are_places(monkeypatch):
    monkeypatch.setattr(batches, "LAYOUTS", 2)
    seats, layouts = seats_of(4), Layouts()
    for seat in seats:
        list(layouts.tables([seat.task(planned(1.0), {})], 10**9))
    assert len(layouts._known) == 2


@pytest.mark.parametrize("limit", [1, 3])
def test_seats_of_one_place_are_bounded(monkeypatch, limit):
    """A place that many structures end up in does not keep what all of them were."""
    monkeypatch.setattr(compute, "SEATS", limit)
    (seat,) = seats_of(1)
    inputs = seat._inputs
    monkeypatch.setattr(compute, "inputs_of", lambda *_: inputs)
    monkeypatch.setattr(compute, "activations_of", lambda *_: None)
    seats = {}
    for number in range(5):
        plan = TensorPlan(**{**planned(1.0).__dict__, "site": bytes([number]), "params": {"normalize": True},
                             "source_params": ({"weight": 1.0},) * 2})  # fmt: skip
        options = compute.Options(None, True, None, None, {plan.site: None})
        assert compute.prepare(plan, torch.empty(64), options, seats).seat is not None
        assert len(seats) <= limit
