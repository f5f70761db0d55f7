"""Running a step over a whole tensor: block by block as it stands, or compiled; the bytes are the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from merging.kernels import BLOCK, Block, Inputs, Step
from merging.randomness import WORD, mix, signed


def run(step: Step, inputs: Inputs, out: Tensor, scale: float) -> None:
    """Write the step's result, times `scale` and rounded once, into the flat `out`."""
    for start, stop, block in blocks(step, inputs):
        result = step.formula(block, **step.flags)
        out[start:stop] = result if scale == 1.0 else result * scale


def blocks(
    step: Step, inputs: Inputs, dtype: torch.dtype = torch.float32, size: int = BLOCK
) -> Iterator[tuple[int, int, Block]]:
    """(start, stop, block) over the whole tensor.

    Args:
        step: what the blocks are for.
        inputs: the sources.
        dtype: what the blocks are computed in; float64 where a derivative is checked.
        size: elements of a block; must divide 2^32.
    """
    numbers = _numbers(step, dtype, inputs.device)
    words = torch.tensor([signed(word) for word in step.words], dtype=torch.int32, device=inputs.device)
    for start in range(0, inputs.elements, size):
        stop = min(start + size, inputs.elements)
        parts = [tensor[start:stop].to(dtype) for tensor in inputs.tensors]
        base = None if inputs.base is None else parts.pop(inputs.base)
        index, stretch = _index(start, stop, inputs.device) if step.indexed else (None, None)
        fields = tuple(_field(field, inputs.shape, start, stop) for field in step.fields)
        yield start, stop, Block(tuple(parts), base, fields, numbers, words.unbind(), index, stretch)


def _numbers(step: Step, dtype: torch.dtype, device: torch.device) -> Sequence[Tensor]:
    if any(isinstance(number, Tensor) for number in step.numbers):
        return [torch.as_tensor(number, dtype=torch.float64).to(dtype=dtype, device=device) for number in step.numbers]
    return torch.tensor(step.numbers, dtype=dtype, device=device).unbind()


def _index(start: int, stop: int, device: torch.device) -> tuple[Tensor, Tensor]:
    index = torch.arange(stop - start, dtype=torch.int32, device=device).add_(signed(start & WORD))
    return index, torch.tensor(signed(mix(start >> 32)), dtype=torch.int32, device=device)


def _field(field: Tensor, shape: tuple[int, ...], start: int, stop: int) -> Tensor:
    """Elements of a field that may be shorter than the tensor along some dimensions."""
    if field.shape == shape:
        return field.reshape(-1)[start:stop]
    columns = shape[-1]
    rows = torch.arange(start // columns, (stop - 1) // columns + 1, device=field.device)
    whole = field.expand(shape).reshape(-1, columns) if len(shape) != 2 else field.expand(shape)
    first = start - start // columns * columns
    return whole[rows].reshape(-1)[first : first + stop - start]
