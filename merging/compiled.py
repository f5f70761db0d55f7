"""Formulas as compiled kernels that write in place: every byte read once, every byte written once.

A formula is compiled once per variant (flags, number and dtypes of sources, ...): by the machine's C++ compiler for
processors, by torch's elsewhere. What differs between candidates goes in as small tensors, so nothing is compiled again
for other weights. Until a variant is ready, and wherever compiling fails, blocks run as they stand; the bytes are the
same either way, which is checked before a variant is used.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from merging.batches import Layouts, Table, Task, grid, laid, slices, tables
from merging.blocks import Cutter, Note, block_size, run, witness
from merging.expressions import UnknownOperationError, source_of
from merging.lanes import spread
from merging.native import PAST_CACHES, Native, compile_native, compiler
from merging.variants import Kernel, Variant, carries, function_of, variant_of

log = logging.getLogger(__name__)

#: `auto` compiles in the background what has proved worth it, `always` at first use.
Mode = Literal["auto", "never", "always"]
#: Seconds that a variant takes as it stands before it is compiled, which takes about as long.
WORTH_SECONDS = 1.0
#: Elements of the smallest tensors that are worth compiling for.
SMALLEST = 1 << 10
#: Rows and columns that a variant is tried on before it is used.
SAMPLE = (12, 8192)
#: What variants are tried on besides: zeros of both signs, the smallest numbers, those halfway between two of 16 bits,
#: and large ones.
ODD = (0.0, -0.0, 1e-45, -1e-39, 1.17549435e-38, 1.0, -1.0, 1.00390625, 1.01171875, -1.00390625, 3.1, -65504.0)
#: Elements per call; fewer where the result is read again at once and should still be in the cache.
LARGEST, CACHED = 1 << 30, 1 << 20
#: Elements that are not worth a second core.
SMALL = 1 << 18
#: Kinds of tasks whose variant is remembered.
SEEN = 1 << 14
#: So often may a compiler fail before it is not asked again.
FAILURES = 4
#: For torch's compiler: everything a guard would look at is part of the variant; divide and round exactly as eager
#: operations do, without fused multiply-adds.
OPTIONS: dict[str, Any] = {
    "guard_filter_fn": torch.compiler.skip_all_guards_unsafe,
    "emulate_precision_casts": True,
    "eager_numerics.division_rounding": True,
}


class Compiler:
    """Runs steps, compiled where that pays.

    Args:
        mode: when to compile.
    """

    def __init__(self, mode: Mode = "auto") -> None:
        self.mode = mode
        self._seen: dict[Hashable, Variant | None] = {}
        self._one: dict[Variant, Variant] = {}
        self._kernels: dict[Variant, Native | Kernel | None] = {}
        self._plain: dict[Variant, Kernel] = {}
        self._seconds: dict[Variant, float] = {}
        self._busy: threading.Thread | None = None
        self._failures = 0

    def run(self, tasks: Sequence[Task], layouts: Layouts | None = None) -> list[Note]:
        """Do the tasks, in any order; the bytes are those of `blocks.run`.

        Args:
            tasks: what to do.
            layouts: how tasks were laid out before.

        Returns:
            What is known of the results, but of those that cannot be other than finite.
        """
        notes: list[Note] = []
        alike: dict[Variant, list[Task]] = defaultdict(list)
        for task in tasks:
            variant = self._variant_of(task)
            if variant is None:
                notes += run(task)
            else:
                alike[variant].append(task)
        for variant, members in alike.items():
            kernel = self._compiled(variant, members)
            if kernel is None:
                notes += self._as_it_stands(variant, members)
            elif isinstance(kernel, Native):
                lanes, past = 1 if _small(members) else None, sum([task.out.nbytes for task in members]) >= PAST_CACHES
                notes += kernel.run((layouts or Layouts()).tables(members, LARGEST), lanes, past=past)
            else:
                notes += _call(kernel, members, layouts or Layouts())
        return notes

    def _variant_of(self, task: Task) -> Variant | None:
        """As `variant_of`; looked up for a task of which one with the same seat and the same kind of step was seen."""
        step = task.step
        if task.seat is None or step.fields or carries(step):
            return variant_of(task)
        kind = (task.seat, step.formula, *step.flags.items(), len(step.numbers), len(step.words), task.scale != 1.0)
        if kind not in self._seen:
            if len(self._seen) >= SEEN:
                self._seen.clear()
            variant = variant_of(task)
            # One object for all that are equal, for those are looked up fastest.
            self._seen[kind] = variant if variant is None else self._one.setdefault(variant, variant)
        return self._seen[kind]

    def wait(self) -> None:
        """Until what is being compiled is ready."""
        if self._busy is not None:
            self._busy.join()

    def _compiled(self, variant: Variant, tasks: Sequence[Task]) -> Native | Kernel | None:
        if self.mode == "always" and self._may_try(variant):
            trial = self._trial(variant, tasks)
            if trial is not None:
                trial()
        return self._kernels.get(variant)

    def _as_it_stands(self, variant: Variant, tasks: Sequence[Task]) -> list[Note]:
        """Run the formula itself; what has taken long enough so is compiled in the background."""
        started = time.perf_counter()
        lanes = None if variant.device.type == "cpu" and not _small(tasks) else 1
        notes: list[Note] = []
        plain = self._plain.setdefault(variant, function_of(variant))
        for checked, members in _kinds(tasks):
            invoke = partial(_invoke, plain, checked=checked)
            for found in spread(invoke, tables(members, block_size(variant.device)), lanes):
                notes += found
        total = self._seconds[variant] = self._seconds.get(variant, 0.0) + time.perf_counter() - started
        idle = self._busy is None or not self._busy.is_alive()
        if self.mode == "auto" and total >= WORTH_SECONDS and idle and self._may_try(variant):
            trial = self._trial(variant, tasks)
            if trial is not None:
                self._busy = threading.Thread(target=trial, name="compiler", daemon=True)
                self._busy.start()
        return notes

    def _may_try(self, variant: Variant) -> bool:
        return variant not in self._kernels and self._failures < FAILURES

    def _trial(self, variant: Variant, tasks: Sequence[Task]) -> Callable[[], None] | None:
        """What compiles a variant, on any thread; None where there is nothing to try it on, or no way to write it."""
        sample = sample_of(variant, tasks)
        if sample is None:
            return None
        if variant.device.type != "cpu":
            return partial(self._try, variant, sample, None)
        try:
            compiler()
        except Exception as error:  # None, or named in a way that nobody understands: so it is for every formula.
            self._give_up(variant, error)
            self._failures = FAILURES
            return None
        try:
            # Here, for while something is traced, no other thread may run a model.
            source = source_of(variant)
        except Exception as error:  # Whatever tracing may raise: the blocks serve, and others may still be compiled.
            self._leave(variant, error)
            return None
        return partial(self._try, variant, sample, source)

    def _try(self, variant: Variant, sample: Task, source: str | None) -> None:
        try:
            self._kernels[variant] = compile_variant(variant, sample, source)
        except Exception as error:  # Whatever a compiler may raise: the blocks serve.
            (self._leave if source is None and _untraced(error) else self._give_up)(variant, error)

    def _leave(self, variant: Variant, error: Exception) -> None:
        """Leave a variant alone that nobody can trace; that does not count as a failure of the compiler."""
        self._kernels[variant] = None
        level = logging.DEBUG if isinstance(error, UnknownOperationError) else logging.INFO
        log.log(level, "%s runs as it stands: %s", variant.formula.__name__, error)

    def _give_up(self, variant: Variant, error: Exception) -> None:
        self._kernels[variant] = None
        self._failures += 1
        level = logging.WARNING if self._failures == 1 else logging.DEBUG
        log.log(level, "merging goes on without a compiled kernel for %s: %s", variant.formula.__name__, error)


def sample_of(variant: Variant, tasks: Sequence[Task]) -> Task | None:
    """The beginning of the largest tensors, copied, as rows and columns; None where none is large enough."""
    task = max(tasks, key=lambda each: each.inputs.elements)
    step, inputs = task.step, task.inputs
    if inputs.elements < SMALLEST:
        return None
    if not task.dense:
        rows, columns = grid(inputs)
        rows = min(rows, max(SAMPLE[0], SAMPLE[0] * SAMPLE[1] // columns))
        step = replace(step, fields=tuple(_top(laid(field, inputs), rows) for field in step.fields))
    else:
        rows = SAMPLE[0]
        columns = min(SAMPLE[1], inputs.elements // rows) // 2 * 2
        fields = tuple(field.reshape(-1)[: rows * columns].view(rows, columns).clone() for field in step.fields)
        step = replace(step, fields=fields)
    tensors = tuple(tensor[: rows * columns].clone() for tensor in inputs.tensors)
    out = torch.empty(rows * columns, dtype=task.out.dtype, device=inputs.device)
    return Task(step, replace(inputs, tensors=tensors, shape=(rows, columns)), out, task.scale)


def _untraced(error: Exception) -> bool:
    """Whether torch's compiler has failed in the formula, before it came to compile anything."""
    known = torch._dynamo.exc
    return isinstance(error, known.Unsupported | known.UserError | known.TorchRuntimeError)


def _top(table: Tensor | None, rows: int) -> Tensor:
    assert table is not None
    return table[:rows].clone()


def compile_variant(variant: Variant, sample: Task, source: str | None) -> Native | Kernel:
    """The compiled kernel.

    Args:
        variant: what to compile.
        sample: what it is compiled and tried on.
        source: its C++; None for torch's compiler.

    Raises:
        RuntimeError: its bytes are not those of the formula.
        Exception: whatever the compiler raises.
    """
    rows, columns = sample.inputs.shape
    whole, by_row = (list(slices([sample], rows, columns, limit)) for limit in (LARGEST, columns))
    if source is not None:
        kernel: Native | Kernel = compile_native(source)
    else:
        kernel = torch.compile(function_of(variant), fullgraph=True, options=OPTIONS)
        _mark(whole[0])
    expected = _expected(sample)
    for parts, past in ((whole, False), (by_row, False), (whole, True)):
        sample.out.zero_()
        _do(kernel, parts, past)
        _compare(sample.out, expected)
    odd = odd_table(whole[0])
    _do(function_of(variant), [odd], past=False)
    expected = odd.tensors[0].clone()
    _do(kernel, [odd], past=False)
    _compare(odd.tensors[0], expected)
    return kernel


def _do(kernel: Native | Kernel, parts: Sequence[Table], past: bool) -> None:
    if isinstance(kernel, Native):
        kernel.run(parts, past=past)
        return
    for table in parts:
        _invoke(kernel, table, checked=False)


def _compare(found: Tensor, expected: Tensor) -> None:
    """Raises RuntimeError unless the bytes are the same, but for those of NaN, which has many."""
    sound = ~torch.isnan(expected)
    whole = torch.int32 if found.itemsize == 4 else torch.int16
    same = (found.view(whole) == expected.view(whole)) | (torch.isnan(found) & ~sound)
    if not bool(same.all()):
        raise RuntimeError("its bytes are not those of the formula")


def odd_table(table: Table) -> Table:
    """A table of its shape with numbers that candidates seldom hold, and indices from all over the range."""
    generator = np.random.default_rng(0)
    out, *others = table.tensors
    sources = len(table.tasks[0].inputs.tensors)
    tensors = [torch.empty_like(out)]
    for tensor in others[:sources]:
        numbers = torch.tensor(ODD).to(tensor.dtype)
        tensors.append(numbers[torch.from_numpy(generator.integers(len(ODD), size=tensor.shape))].to(out.device))
    rows = out.shape[0]
    low, high = -(1 << 31), 1 << 31

    def words(*shape: int) -> Tensor:
        return torch.from_numpy(generator.integers(low, high, shape, dtype=np.int32)).to(out.device)

    drawn = generator.normal(size=(rows, table.numbers.shape[1])).astype(np.float32)
    return replace(
        table,
        tensors=[*tensors, *others[sources:]],
        numbers=torch.from_numpy(drawn).to(out.device),
        words=words(rows, table.words.shape[1]),
        starts=table.starts if table.starts.shape[0] != rows else words(rows, 1),
    )


@torch.no_grad()
def _expected(task: Task) -> Tensor:
    block = Cutter(task.step, task.inputs).block(0, task.inputs.elements)
    return (task.step.formula(block, **task.step.flags) * task.scale).to(task.out.dtype)


def _mark(table: Table) -> None:
    """The number of rows and their length may be any at the next call."""
    for tensor in (*table.tensors, table.numbers, table.words, table.starts):
        for dimension, size in enumerate(tensor.shape[: 1 if tensor.shape[1] < table.tensors[0].shape[1] else 2]):
            if size > 1:
                torch._dynamo.mark_dynamic(tensor, dimension)


def _small(tasks: Sequence[Task]) -> bool:
    """Whether one core is done before others have begun."""
    return sum([task.out.numel() for task in tasks]) < SMALL


def _kinds(tasks: Sequence[Task]) -> Iterator[tuple[bool, list[Task]]]:
    """The tasks whose results are to be looked through, and those whose results are not; whichever there are."""
    kinds: tuple[list[Task], list[Task]] = [], []
    for task in tasks:
        kinds[task.safe].append(task)
    return ((checked, members) for checked, members in zip((True, False), kinds, strict=True) if members)


def _call(kernel: Kernel, tasks: Sequence[Task], layouts: Layouts) -> list[Note]:
    """Run a kernel of torch's compiler, and look results through that need it."""
    notes: list[Note] = []
    for checked, members in _kinds(tasks):
        # All of them first: a kernel leaves nothing in the caches for the code between its calls.
        for table in list(layouts.tables(members, CACHED if checked else LARGEST)):
            notes += _invoke(kernel, table, checked)
    return notes


@torch.no_grad()
def _invoke(kernel: Kernel, table: Table, checked: bool = True) -> list[Note]:
    out, *others = table.tensors
    kernel(out, table.numbers, table.words, table.starts, *others)
    return [Note(witness(out), [task.out for task in table.tasks])] if checked else []
