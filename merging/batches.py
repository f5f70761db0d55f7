"""Many tensors in one call of a kernel: as rows of a table, where tensors of one size lie one after another in memory.

Large tensors are cut into rows as well, so that every table has enough of them to share between cores.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from merging.kernels import Inputs, Step, largest_result, overflows_never
from merging.randomness import WORD, signed

#: Elements of a row at most: what a formula makes of them stays in a core's own cache.
WIDTH = 1 << 17
#: Layouts that are remembered, one or a few per structure of a candidate.
LAYOUTS = 16
#: In which storage a tensor lies, and from which address on.
Spot = tuple[int, int]
Places = tuple[int, list[Spot]]
#: Rows have an index per element only below this length.
LONGEST = 1 << 32


@dataclass(slots=True, eq=False)
class Task:
    """A step to be run: its result times `scale`, rounded once, goes into the flat `out`.

    Attributes:
        exact: whether the formula gives the same bytes however it is run.
        seat: tasks of one number have the same sources and the same result, which stay where they are.
        dense: whether its fields, if there are any, have a number for every element.
        flat: the result, the sources and dense fields, all of one length and without gaps.
    """

    step: Step
    inputs: Inputs
    out: Tensor
    scale: float
    exact: bool = True
    seat: int | None = None
    dense: bool = field(init=False)
    flat: tuple[Tensor, ...] = field(init=False)

    def __post_init__(self) -> None:
        fields = self.step.fields
        self.dense = not fields or all(each.shape == self.inputs.shape for each in fields)
        self.flat = (self.out, *self.inputs.tensors)
        if self.seat is None:
            assert whole(self.flat)
        if self.dense and fields:
            self.flat += tuple(each.contiguous() for each in fields)

    @property
    def safe(self) -> bool:
        """Whether the result is finite for certain."""
        peak = largest_result(self.step, self.inputs)
        return overflows_never(peak, abs(self.scale)) and peak * abs(self.scale) < torch.finfo(self.out.dtype).max / 2


def whole(tensors: Sequence[Tensor]) -> bool:
    """Whether results and sources have no gaps, as everything that cuts them takes for granted."""
    return all(tensor.is_contiguous() for tensor in tensors)


@dataclass(frozen=True, slots=True)
class Table:
    """The arguments of one call.

    Attributes:
        tasks: whose results it holds, or parts of them.
        tensors: (rows, columns) the result and the sources; then the fields, which may have one row or one column.
        numbers: (rows, k + 1) float32, the step's numbers and the scale.
        words: (rows, k) int32.
        starts: (rows, 1) int32, the index of every row's first element within its tensor; (1, 1) if nobody asks.
    """

    tasks: Sequence[Task]
    tensors: Sequence[Tensor]
    numbers: Tensor
    words: Tensor
    starts: Tensor

    @property
    def columns(self) -> int:
        """Of the result."""
        return self.tensors[0].shape[1]

    @property
    def elements(self) -> int:
        """Of the result."""
        return self.tensors[0].numel()


def tables(tasks: Sequence[Task], limit: int) -> Iterator[Table]:
    """Tasks of one variant as tables of at most `limit` elements (and at least one row)."""
    for run in _runs(tasks):
        if not run[0].dense:
            rows, columns = grid(run[0].inputs)
            yield from slices(run, rows, columns, limit)
            continue
        parts = _parts(run[0].inputs.elements)
        if parts:
            yield from slices(run, parts, run[0].inputs.elements // parts, limit)
        else:
            yield from _with_rest(run[0], limit)


def grid(inputs: Inputs) -> tuple[int, int]:
    """Rows and columns of a tensor; a 1-D tensor is one row."""
    return inputs.elements // max(1, inputs.columns), inputs.columns


def laid(field: Tensor, inputs: Inputs) -> Tensor | None:
    """A field as a table of rows and columns, or of one of either; None if it is spread in another way."""
    shape = (1,) * (len(inputs.shape) - field.dim()) + tuple(field.shape)
    if shape[:-1] != inputs.shape[:-1] and any(size != 1 for size in shape[:-1]):
        return None
    return field.reshape(-1, shape[-1] if shape else 1)


def _runs(tasks: Sequence[Task]) -> Iterator[list[Task]]:
    """The tasks in lists of equal size whose tensors all follow one another in memory."""
    placed = sorted(((_places(task), task) for task in tasks), key=lambda each: each[0])
    run = [task for _, task in placed[:1]]
    for (before, _), (after, task) in pairwise(placed):
        if not task.dense or not _adjacent(before, after, task):
            yield run
            run = []
        run.append(task)
    if run:
        yield run


def _places(task: Task) -> Places:
    """How large a task's tensors are, and where: in which storage they lie, and from which address on."""
    tensors = task.flat
    return tensors[0].numel(), [_spot(tensor) for tensor in tensors]


def _spot(tensor: Tensor) -> Spot:
    return tensor.untyped_storage().data_ptr(), tensor.data_ptr()


def _adjacent(before: Places, after: Places, task: Task) -> bool:
    """Whether every tensor of a task begins where those before it end, in the same storage."""
    elements, places = after
    if before[0] != elements:
        return False
    for (storage, address), place, tensor in zip(before[1], places, task.flat, strict=True):
        if place != (storage, address + elements * tensor.itemsize):
            return False
    return True


def slices(run: Sequence[Task], parts: int, width: int, limit: int) -> Iterator[Table]:
    """Tables of at most `limit` elements of tensors that follow one another, cut into so many rows of some width."""
    return _filled(_sheets(run, run[0].flat, parts, width, limit), run, parts)


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table but for what a candidate writes into it.

    Attributes:
        top, end: which rows of the whole run it holds.
        tensors, starts: as in `Table`.
    """

    top: int
    end: int
    tensors: Sequence[Tensor]
    starts: Tensor


Layout = tuple[list[int], int, list[Sheet]]


class Layouts:
    """Remembers how tasks are laid out as tables, for candidates whose tensors lie where they lay before."""

    def __init__(self) -> None:
        self._known: OrderedDict[Hashable, tuple[list[Spot], list[Layout]]] = OrderedDict()

    def clear(self) -> None:
        """Let go of all memory."""
        self._known.clear()

    def tables(self, tasks: Sequence[Task], limit: int) -> Iterator[Table]:
        """As the function `tables`."""
        seats = [task.seat for task in tasks]
        if None in seats or not all(task.dense for task in tasks):
            yield from tables(tasks, limit)
            return
        key = (limit, tasks[0].step.indexed, *seats)
        # Results and sources stay where they are, but fields need not.
        fields = [_spot(field) for task in tasks for field in task.flat[len(task.inputs.tensors) + 1 :]]
        known = self._known.get(key)
        if known is None or known[0] != fields:
            # The largest first, so that all who share them are done at nearly one time.
            runs = sorted(_runs(tasks), key=lambda run: -len(run) * run[0].inputs.elements)
            if not all(_parts(run[0].inputs.elements) for run in runs):
                yield from tables(tasks, limit)
                return
            known = self._known[key] = fields, _layout(tasks, runs, limit)
            while len(self._known) > LAYOUTS:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        for places, parts, sheets in known[1]:
            run = [tasks[place] for place in places]
            yield from _filled((_with_fields(sheet, run[0], parts) for sheet in sheets), run, parts)


def _layout(tasks: Sequence[Task], runs: Sequence[list[Task]], limit: int) -> list[Layout]:
    """Of every run the places of its tasks, how many rows each of them has, and the sheets, without fields."""
    places = {id(task): place for place, task in enumerate(tasks)}
    found = []
    for run in runs:
        elements = run[0].inputs.elements
        parts = _parts(elements)
        sheets = _sheets(run, run[0].flat[: len(run[0].inputs.tensors) + 1], parts, elements // parts, limit)
        found.append(([places[id(task)] for task in run], parts, list(sheets)))
    return found


def _with_fields(sheet: Sheet, first: Task, parts: int) -> Sheet:
    """The sheet with the dense fields of its run, which others may let go of: no layout keeps them."""
    fields = first.flat[len(first.inputs.tensors) + 1 :]
    if not fields:
        return sheet
    width = first.inputs.elements // parts
    shape, start = (sheet.end - sheet.top, width), sheet.top * width
    own = [field.as_strided(shape, (width, 1), field.storage_offset() + start) for field in fields]
    return replace(sheet, tensors=[*sheet.tensors, *own])


def _sheets(run: Sequence[Task], flat: Sequence[Tensor], parts: int, width: int, limit: int) -> Iterator[Sheet]:
    """Sheets of a run from what its first task finds in `flat`, and its fields where they are not dense."""
    first, rows = run[0], len(run) * parts
    whole = [tensor.as_strided((rows, width), (width, 1)) for tensor in flat]
    fields = () if first.dense else [_field(each, first.inputs) for each in first.step.fields]
    starts = _starts(parts, width, first.inputs.device).repeat(len(run), 1) if first.step.indexed else None
    height = max(1, limit // width)
    for top in range(0, rows, height):
        end = min(top + height, rows)
        yield Sheet(
            top,
            end,
            tensors=[t if t.shape[0] == 1 != rows else t[top:end] for t in (*whole, *fields)],
            starts=_starts(1, 0, first.inputs.device) if starts is None else starts[top:end],
        )


def _filled(sheets: Iterable[Sheet], run: Sequence[Task], parts: int) -> Iterator[Table]:
    """Sheets of a run with what its tasks write into them."""
    numbers, words = _numbers(run, parts), _words(run, parts)
    for sheet in sheets:
        top, end = sheet.top, sheet.end
        tasks = run[top // parts : (end - 1) // parts + 1]
        yield Table(tasks, sheet.tensors, numbers[top:end], words[top:end], sheet.starts)


def _with_rest(task: Task, limit: int) -> Iterator[Table]:
    """Tables of a tensor that equal rows do not fill: full rows, and one shorter row."""
    rows = task.inputs.elements // WIDTH
    yield from slices([_cut(task, 0, rows * WIDTH)], rows, WIDTH, limit)
    rest = next(slices([_cut(task, rows * WIDTH, task.inputs.elements)], 1, task.inputs.elements - rows * WIDTH, limit))
    starts = torch.full((1, 1), signed(rows * WIDTH & WORD), dtype=torch.int32, device=task.inputs.device)
    yield Table([task], rest.tensors, rest.numbers, rest.words, starts if task.step.indexed else rest.starts)


def _cut(task: Task, start: int, stop: int) -> Task:
    inputs = task.inputs
    inputs = replace(inputs, tensors=tuple(tensor[start:stop] for tensor in inputs.tensors), shape=(stop - start,))
    step = replace(task.step, fields=tuple(each.reshape(-1)[start:stop] for each in task.step.fields))
    return Task(step, inputs, task.out[start:stop], task.scale, task.exact)


def _field(field: Tensor, inputs: Inputs) -> Tensor:
    table = laid(field.to(inputs.device), inputs)
    assert table is not None
    # What is spread along a row, or lies across, is read as if its numbers lay one after another.
    return table.contiguous()


def _numbers(run: Sequence[Task], parts: int) -> Tensor:
    # What is too large for float32 becomes infinite, and is told of the results.
    with np.errstate(over="ignore"):
        values = np.array([[*task.step.numbers, task.scale] for task in run], dtype=np.float32)
    return _repeated(values, parts, run[0].inputs.device)


def _words(run: Sequence[Task], parts: int) -> Tensor:
    if not run[0].step.words:
        return torch.empty((len(run) * parts, 0), dtype=torch.int32, device=run[0].inputs.device)
    values = np.array([task.step.words for task in run], dtype=np.int64)
    return _repeated(values.astype(np.uint32).view(np.int32), parts, run[0].inputs.device)


def _repeated(values: NDArray[Any], parts: int, device: torch.device) -> Tensor:
    return torch.from_numpy(values.repeat(parts, 0) if parts > 1 else values).to(device)


@cache
def _parts(elements: int) -> int:
    """How many equal rows a tensor is cut into; 0 if there is no good number."""
    least = max(1, -(-elements // WIDTH))
    return next((parts for parts in range(least, 2 * least + 8) if elements % parts == 0), 0)


@cache
def _starts(parts: int, width: int, device: torch.device) -> Tensor:
    starts = [signed(part * width & WORD) for part in range(parts)]
    return torch.tensor(starts, dtype=torch.int32, device=device).view(-1, 1)
