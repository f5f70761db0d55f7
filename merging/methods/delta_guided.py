"""Delta-guided fusion: models are weighed by how far each has moved from the base.

Paper: CoDiEmb (arXiv 2508.11442), which weighs checkpoints by their deviation from the initial model, at several
levels. Its formula is not public in code; the parametrisation here is this project's own.

    D_i = M_i - B;  s_i = |D_i|, of each element, or the norm of each row or of the whole tensor (`granularity`)
    r_i = s_i / max_k s_k
    a_i = w_i r_i^power, or with a temperature w_i exp(r_i^power / temperature);  a_i over their sum
    out = B + lambda * sum_i a_i D_i

Power 0 is the weighted average of task vectors; a large power, or a low temperature, takes the largest change alone.
Powers and exponentials of elements and rows are those of `merging.powers`, those of whole tensors are the host's.
Temperatures below 1e-6 count as that.

Differs from the paper: see above. Weights, power and temperature are the recipe's. 1-D tensors are one row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from core.catalog import MethodInfo
from core.params import ChoiceParam, FloatParam
from merging import powers
from merging.kernels import Block, Inputs, Method, Number, Step, delta_combination, is_one, weighted_sum
from merging.rows import dots
from merging.scalars import value
from merging.specs import LAMBDA, WEIGHT
from merging.spheres import delta_field_combination

#: A temperature that a float32 can be divided by.
LEAST_TEMPERATURE = 1e-6


def kernel(inputs: Inputs) -> Step:
    """Shares of the tensor or of its rows; those of elements are left to the formula."""
    weights, power, factor = inputs.numbers("weight"), inputs.number("power"), inputs.number("lambda")
    temperature, granularity = inputs.number("temperature"), inputs.flag("granularity")
    heated = value(temperature) > 0.0
    numbers = [*weights, power, *((_at_least(temperature, LEAST_TEMPERATURE),) if heated else ()), factor]
    if granularity == "element":
        return Step(guided, tuple(numbers), flags={"heated": heated, "factor": not is_one(factor)})
    # Whole tensors are reckoned on the host and rows like elements, in float32; what carries derivatives, in float64.
    carried = any(isinstance(number, Tensor) for number in numbers)
    if granularity == "tensor" and not carried:
        return Step(delta_combination, tuple(_host_shares(inputs, list(map(float, numbers)), heated=heated)))
    dtype = torch.float64 if carried else torch.float32
    plain = [torch.as_tensor(number, dtype=torch.float64).to(inputs.device, dtype) for number in numbers]
    norms = [_norms(inputs, position, by_row=granularity == "row").to(dtype) for position in inputs.others]
    shares = guided_shares(norms, plain[: len(norms)], plain[len(norms)], plain[-2] if heated else None)
    shares = [share * plain[-1] for share in shares]
    if granularity == "row":
        return Step(delta_field_combination, fields=tuple(shares))
    return Step(delta_combination, tuple(shares))


def guided(block: Block, *, heated: bool, factor: bool) -> Tensor:
    """Formula: numbers are the weights, the power, the temperature under `heated`, and lambda."""
    count, deltas = len(block.others), block.deltas()
    weights, power, temperature = block.numbers[:count], block.numbers[count], block.numbers[count + 1]
    sizes = [delta.abs() for delta in deltas]
    total = weighted_sum(deltas, guided_shares(sizes, weights, power, temperature if heated else None))
    if factor:
        total = total * block.numbers[-1]
    return total + block.base


def guided_shares(
    sizes: Sequence[Tensor], weights: Sequence[Tensor], power: Tensor, temperature: Tensor | None
) -> list[Tensor]:
    """The a_i over their sum; 0 where nothing has any.

    Args:
        sizes: the s_i, all of one shape.
        weights: the w_i.
        power, temperature: as above; no temperature takes the powers themselves.
    """
    largest = sizes[0]
    for size in sizes[1:]:
        largest = torch.maximum(largest, size)
    # Shares of the largest neither overflow nor vanish under a power.
    largest = largest + torch.eq(largest, 0.0).to(largest.dtype)
    pulls = [powers.power(size / largest, power) for size in sizes]
    if temperature is not None:
        pulls = [powers.exponential((pull - 1.0) / temperature) for pull in pulls]
    pulls = [pull * weight for pull, weight in zip(pulls, weights, strict=True)]
    total = pulls[0]
    for pull in pulls[1:]:
        total = total + pull
    total = total + torch.eq(total, 0.0).to(total.dtype)
    return [pull / total for pull in pulls]


def _host_shares(inputs: Inputs, numbers: Sequence[float], *, heated: bool) -> list[float]:
    """lambda a_i of a whole tensor by the host's own functions, so that a device's change no bit."""
    sizes = [_norm(inputs, position) for position in inputs.others]
    largest, power = max(sizes) or 1.0, numbers[len(sizes)]
    pulls = [math.pow(size / largest, power) for size in sizes]
    if heated:
        pulls = [math.exp((pull - 1.0) / numbers[-2]) for pull in pulls]
    pulls = [pull * weight for pull, weight in zip(pulls, numbers, strict=False)]
    total = math.fsum(pulls) or 1.0
    return [pull / total * numbers[-1] for pull in pulls]


def _at_least(number: Number, least: float) -> Number:
    return number if value(number) >= least else least


def _norms(inputs: Inputs, position: int, *, by_row: bool) -> Tensor:
    """|D| of every row, in the shape of a field, or of the tensor, a scalar; float64."""
    if by_row:
        return dots(inputs, "rows", position, position, deltas=True).sqrt()
    return torch.tensor(_norm(inputs, position), dtype=torch.float64, device=inputs.device)


def _norm(inputs: Inputs, position: int) -> float:
    return math.sqrt(inputs.delta_dot(position, position))


METHOD = Method(
    info=MethodInfo(
        name="delta_guided",
        version=2,
        summary="Task vectors weighed by their size, per element, row or tensor (after CoDiEmb, own parametrisation).",
        needs_base=True,
        symmetric=True,
        smooth=("weight", "power", "temperature", "lambda"),
        params=(
            WEIGHT.evolve(low=0.0),
            FloatParam(
                name="power",
                default=1.0,
                low=0.0,
                high=16.0,
                search_low=0.0,
                search_high=4.0,
                about="0 counts all changes alike, more favours large ones",
            ),
            ChoiceParam(
                name="granularity",
                default="tensor",
                choices=("element", "row", "tensor"),
                about="what is measured by itself",
            ),
            FloatParam(
                name="temperature",
                default=0.0,
                low=0.0,
                search_low=0.05,
                search_high=2.0,
                searched=False,
                about="of a softmax over the powers; 0 is none",
            ),
            LAMBDA,
        ),
    ),
    kernel=kernel,
)
