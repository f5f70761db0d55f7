"""Delta-guided fusion: models are weighed by how far each has moved from the base.

Paper: CoDiEmb (arXiv 2508.11442), which weighs checkpoints by their deviation from the initial model, at several
levels. Its formula is not public in code; the parametrisation here is this project's own.

    D_i = M_i - B;  s_i = |D_i|, of each element, or the norm of each row or of the whole tensor (`granularity`)
    r_i = s_i / max_k s_k
    a_i = w_i r_i^power, or with a temperature w_i exp(r_i^power / temperature);  a_i over their sum
    out = B + lambda * sum_i a_i D_i

Power 0 is the weighted average of task vectors; a large power, or a low temperature, takes the largest change alone.

Differs from the paper: see above. Weights, power and temperature are the recipe's. 1-D tensors are one row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from core.catalog import MethodInfo
from core.params import ChoiceParam, FloatParam
from merging.kernels import Block, Inputs, Method, Step, delta_combination, is_one, weighted_sum
from merging.rows import dots
from merging.scalars import value
from merging.specs import LAMBDA, WEIGHT
from merging.spheres import delta_field_combination


def kernel(inputs: Inputs) -> Step:
    """Shares of the tensor or of its rows; those of elements are left to the formula."""
    weights, power, factor = inputs.numbers("weight"), inputs.number("power"), inputs.number("lambda")
    temperature = inputs.number("temperature")
    heated = value(temperature) > 0.0
    if inputs.flag("granularity") == "element":
        numbers = (*weights, power, *((temperature,) if heated else ()), factor)
        return Step(guided, numbers, flags={"heated": heated, "factor": not is_one(factor)})
    by_row = inputs.flag("granularity") == "row"
    sizes = [_row_norms(inputs, p) if by_row else _norm(inputs, p) for p in inputs.others]
    plain = [torch.as_tensor(number, dtype=torch.float64) for number in (*weights, power, temperature)]
    shares = [a * factor for a in guided_shares(sizes, plain[:-2], plain[-2], plain[-1] if heated else None)]
    if by_row:
        return Step(delta_field_combination, fields=tuple(_field(share, inputs) for share in shares))
    return Step(delta_combination, tuple(share if share.requires_grad else float(share) for share in shares))


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
    pulls = [(size / largest) ** power for size in sizes]
    if temperature is not None:
        pulls = [torch.exp((pull - 1.0) / temperature) for pull in pulls]
    pulls = [pull * weight for pull, weight in zip(pulls, weights, strict=True)]
    total = pulls[0]
    for pull in pulls[1:]:
        total = total + pull
    total = total + torch.eq(total, 0.0).to(total.dtype)
    return [pull / total for pull in pulls]


def _norm(inputs: Inputs, position: int) -> Tensor:
    return torch.tensor(math.sqrt(inputs.delta_dot(position, position)), dtype=torch.float64)


def _row_norms(inputs: Inputs, position: int) -> Tensor:
    return dots(inputs, "rows", position, position, deltas=True).sqrt().cpu()


def _field(share: Tensor, inputs: Inputs) -> Tensor:
    return (share if share.requires_grad else share.float()).to(inputs.device)


METHOD = Method(
    info=MethodInfo(
        name="delta_guided",
        summary="Task vectors weighed by their size, per element, row or tensor (after CoDiEmb, own parametrisation).",
        needs_base=True,
        elementwise=False,
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
