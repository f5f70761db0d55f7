"""Formulas as compiled kernels that write in place: every byte read once, every byte written once.

A formula is compiled once per variant (flags, number and dtypes of sources, ...). What differs between candidates goes
in as small tensors, so nothing is compiled again for other weights. Until a variant is ready, and wherever compiling
fails, blocks run as they stand; the bytes are the same either way, which is checked before a variant is used.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import count
from types import FunctionType
from typing import Any, Literal

import torch
from torch import Tensor

from merging.blocks import Cutter, place_of, run, witness, words_of
from merging.kernels import Block, Formula, Inputs, Step

log = logging.getLogger(__name__)

#: `auto` compiles in the background what has proved worth it, `always` at first use.
Mode = Literal["auto", "never", "always"]
#: Seconds that a variant takes as it stands before it is compiled, which takes about as long.
WORTH_SECONDS = 2.0
#: Smaller tensors are left out: one operation after the other takes no longer on them.
SMALLEST = 1 << 10
#: Elements that a variant is tried on before it is used.
SAMPLE = 1 << 17
#: Elements per call. In float32 on a CPU a kernel tells by itself whether all is finite; elsewhere the result is read
#: again, and should still be in the cache.
LARGEST, CACHED = 1 << 30, 1 << 21
#: So many variants may fail before no more are tried.
FAILURES = 4
#: Kernels use as many threads as torch is set to; everything a guard would look at is part of the variant.
OPTIONS: dict[str, Any] = {
    "cpp.dynamic_threads": True,
    "guard_filter_fn": torch.compiler.skip_all_guards_unsafe,
}
#: Divide and round exactly as eager operations do, without fused multiply-adds.
GPU_OPTIONS: dict[str, Any] = {"emulate_precision_casts": True, "eager_numerics.division_rounding": True}

Kernel = Callable[..., Tensor | None]
_names = count()


@dataclass(frozen=True, slots=True)
class Variant:
    """What a kernel is compiled for.

    Attributes:
        formula, flags, base, indexed: as in the step and its inputs.
        dtypes: of the sources.
        fields: dtype of each field, and whether it has rows and columns of its own.
        grid: whether tensors are taken as rows of columns, for the sake of the fields; flat otherwise.
        numbers, words: how many there are.
        scaled: whether the result is multiplied by one more number.
        out: dtype of the result.
        device: where all of it is.
    """

    formula: Formula
    flags: tuple[tuple[str, Hashable], ...]
    base: int | None
    indexed: bool
    dtypes: tuple[torch.dtype, ...]
    fields: tuple[tuple[torch.dtype, bool, bool], ...]
    grid: bool
    numbers: int
    words: int
    scaled: bool
    out: torch.dtype
    device: torch.device

    @property
    def tells(self) -> bool:
        """Whether the kernel gives a witness itself; reducing costs nothing there, but slows narrow stores down."""
        return self.device.type == "cpu" and self.out == torch.float32


class Compiler:
    """Runs steps, compiled where that pays.

    Args:
        mode: when to compile.
    """

    def __init__(self, mode: Mode = "auto") -> None:
        self.mode = mode
        self._kernels: dict[Variant, Kernel | None] = {}
        self._seconds: dict[Variant, float] = {}
        self._busy: threading.Thread | None = None
        self._failures = 0

    def run(self, step: Step, inputs: Inputs, out: Tensor, scale: float) -> list[Tensor]:
        """As `blocks.run`, with the same bytes."""
        variant = None if self.mode == "never" else variant_of(step, inputs, out, scale != 1.0)
        if variant is None:
            return run(step, inputs, out, scale)
        kernel = self._kernels.get(variant)
        if kernel is None and self.mode == "always" and self._may_try(variant):
            self._try(variant, sample_of(step, inputs), scale)
            kernel = self._kernels[variant]
        if kernel is not None:
            return list(_pieces(kernel, variant, step, inputs, out, scale))
        started = time.perf_counter()
        witnesses = run(step, inputs, out, scale)
        self._note(variant, time.perf_counter() - started, step, inputs, scale)
        return witnesses

    def wait(self) -> None:
        """Until what is being compiled is ready."""
        if self._busy is not None:
            self._busy.join()

    def _note(self, variant: Variant, seconds: float, step: Step, inputs: Inputs, scale: float) -> None:
        """Begin to compile, in the background, what has taken long enough as it stands."""
        total = self._seconds[variant] = self._seconds.get(variant, 0.0) + seconds
        idle = self._busy is None or not self._busy.is_alive()
        if total >= WORTH_SECONDS and idle and self._may_try(variant):
            sample = sample_of(step, inputs)
            self._busy = threading.Thread(target=self._try, args=(variant, sample, scale), name="compiler")
            self._busy.start()

    def _may_try(self, variant: Variant) -> bool:
        return variant not in self._kernels and self._failures < FAILURES

    def _try(self, variant: Variant, sample: tuple[Step, Inputs], scale: float) -> None:
        try:
            self._kernels[variant] = compile_variant(variant, *sample, scale)
        except Exception as error:  # Whatever a compiler may raise: the blocks serve.
            self._kernels[variant] = None
            self._failures += 1
            level = logging.WARNING if self._failures == 1 else logging.DEBUG
            log.log(level, "merging goes on without compiled kernels, for %s: %s", variant.formula.__name__, error)


def variant_of(step: Step, inputs: Inputs, out: Tensor, scaled: bool) -> Variant | None:
    """What a step would be compiled for; None where the tensor is small, a number carries derivatives or a field
    lies oddly."""
    grid = any(field.shape != inputs.shape for field in step.fields)
    rows, columns = _grid(inputs)
    carried = any(isinstance(number, Tensor) for number in step.numbers)
    if carried or inputs.elements < SMALLEST or (grid and (rows < 2 or columns < 2)):
        return None
    fields = []
    for field in step.fields:
        lying = _lies(field, inputs)
        if lying is None:
            return None
        fields.append((field.dtype, *lying))
    return Variant(
        formula=step.formula,
        flags=tuple(step.flags.items()),
        base=inputs.base,
        indexed=step.indexed,
        dtypes=tuple(tensor.dtype for tensor in inputs.tensors),
        fields=tuple(fields),
        grid=grid,
        numbers=len(step.numbers),
        words=len(step.words),
        scaled=scaled,
        out=out.dtype,
        device=inputs.device,
    )


def sample_of(step: Step, inputs: Inputs) -> tuple[Step, Inputs]:
    """The first rows of a tensor, copied."""
    rows, columns = _grid(inputs)
    high = min(rows, max(2, SAMPLE // columns)) if rows > 1 else 1
    end = high * columns if rows > 1 else min(columns, SAMPLE)
    shape = (high, columns) if rows > 1 else (end,)
    tensors = tuple(tensor[:end].clone() for tensor in inputs.tensors)
    fields = tuple(_laid(field, inputs, shape).clone() for field in step.fields)
    return replace(step, fields=fields), replace(inputs, tensors=tensors, shape=shape)


def compile_variant(variant: Variant, step: Step, inputs: Inputs, scale: float) -> Kernel:
    """The compiled kernel.

    Args:
        variant: what to compile.
        step, inputs, scale: a sample that it is compiled and tried on.

    Raises:
        RuntimeError: its bytes are not those of the blocks.
        Exception: whatever the compiler raises.
    """
    options = OPTIONS if variant.device.type == "cpu" else {**OPTIONS, **GPU_OPTIONS}
    compiled: Kernel = torch.compile(_kernel(variant), fullgraph=True, options=options)
    found = torch.empty(inputs.elements, dtype=variant.out, device=inputs.device)
    for _ in _pieces(compiled, variant, step, inputs, found, scale, first=True):
        pass
    with torch.no_grad():
        expected = step.formula(Cutter(step, inputs).block(0, inputs.elements), **step.flags) * scale
    if not torch.equal(found.view(torch.uint8), expected.to(variant.out).view(torch.uint8)):
        raise RuntimeError("the compiled kernel gave other bytes than the formula")
    return compiled


def _kernel(variant: Variant) -> Kernel:
    """The function to compile: a formula around which everything is fixed but the tensors."""
    formula, flags, base, width = variant.formula, dict(variant.flags), variant.base, len(variant.dtypes)

    def kernel(out: Tensor, numbers: Tensor, words: Tensor, place: Tensor, *tensors: Tensor) -> Tensor | None:
        sources = [tensor.to(torch.float32) for tensor in tensors[:width]]
        anchor = None if base is None else sources.pop(base)
        index, stretch = (_indices(out, place), place[1]) if variant.indexed else (None, None)
        fields = tuple(field.expand(out.shape) for field in tensors[width:])
        values, keys = numbers.unbind()[: variant.numbers], words.unbind()
        result = formula(
            Block(tuple(sources), anchor, fields, values[: variant.numbers], keys, index, stretch), **flags
        )
        if variant.scaled:
            result = result * numbers[-1]
        out.copy_(result)
        return result.abs().amax() if variant.tells else None

    # Code and a name of its own: the compiler counts how often one code is compiled, and takes numbers for variable
    # that differ between codes of one name.
    name = f"kernel_{next(_names)}"
    code = kernel.__code__.replace(co_name=name, co_qualname=name)
    return FunctionType(code, kernel.__globals__, name, None, kernel.__closure__)


def _indices(out: Tensor, place: Tensor) -> Tensor:
    """The index of every element, in the shape of the result."""
    if out.dim() == 1:
        return torch.arange(out.shape[0], dtype=torch.int32, device=out.device) + place[0]
    rows = torch.arange(out.shape[0], dtype=torch.int32, device=out.device) * out.shape[1]
    return rows[:, None] + torch.arange(out.shape[1], dtype=torch.int32, device=out.device) + place[0]


def _pieces(
    kernel: Kernel, variant: Variant, step: Step, inputs: Inputs, out: Tensor, scale: float, *, first: bool = False
) -> Iterator[Tensor]:
    """Run a kernel over a tensor, a piece at a time; gives the witnesses. `first` if it is yet to be compiled."""
    device, (rows, columns) = inputs.device, _grid(inputs)
    numbers = torch.tensor([*step.numbers, scale], dtype=torch.float32, device=device)
    words = words_of(step, device) if step.words else _nothing(device)
    tensors = [out, *inputs.tensors]
    if variant.grid:
        tensors = [tensor.view(rows, columns) for tensor in tensors]
        tensors += [_laid(field.to(device), inputs, (rows, columns)) for field in step.fields]
    else:
        tensors += [field.to(device).reshape(-1) for field in step.fields]
    width, length = columns if variant.grid else 1, tensors[0].shape[0]
    at_once = max(1, (LARGEST if variant.tells or device.type != "cpu" else CACHED) // width)
    for start in range(0, length, at_once):
        cut = tensors
        if at_once < length:
            cut = [tensor[start : start + at_once] if tensor.shape[0] == length else tensor for tensor in tensors]
        if first:
            _mark(cut)
        place = place_of(start * width, device) if start else _origin(device)
        with torch.no_grad():
            told = kernel(cut[0], numbers, words, place, *cut[1:])
        yield witness(cut[0]) if told is None else told


def _mark(tensors: list[Tensor]) -> None:
    """Lengths may be any at the next call."""
    for tensor in tensors:
        for dimension, size in enumerate(tensor.shape):
            if size > 1:
                torch._dynamo.mark_dynamic(tensor, dimension)


@cache
def _origin(device: torch.device) -> Tensor:
    return place_of(0, device)


@cache
def _nothing(device: torch.device) -> Tensor:
    return torch.empty(0, dtype=torch.int32, device=device)


def _grid(inputs: Inputs) -> tuple[int, int]:
    """Rows and columns; a 1-D tensor is one row."""
    return inputs.elements // max(1, inputs.columns), inputs.columns


def _lies(field: Tensor, inputs: Inputs) -> tuple[bool, bool] | None:
    """Whether a field has rows and columns of its own; None if it is spread along some dimensions in another way."""
    shape = (1,) * (len(inputs.shape) - field.dim()) + tuple(field.shape)
    rows = shape[:-1] == inputs.shape[:-1]
    if not rows and any(size != 1 for size in shape[:-1]):
        return None
    return rows, shape[-1] == inputs.shape[-1]


def _laid(field: Tensor, inputs: Inputs, shape: tuple[int, ...]) -> Tensor:
    """A field as rows of columns, each of them 1 where it has none of its own, cut down to the rows of `shape`."""
    lying = _lies(field, inputs)
    assert lying is not None
    if len(shape) == 1:
        return field.reshape(-1)[: shape[0]]
    rows, columns = shape
    return field.reshape(-1, columns if lying[1] else 1)[: rows if lying[0] else 1]
