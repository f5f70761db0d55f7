"""DAREx-q: drop entries of every task vector at random, and divide what is left by q instead of the density.

Paper: DARE the extreme (arXiv 2410.09344), section 3.2 and appendix B, with p = 1 - density.

    D_i = M_i - B;  S(D) = D / q where u < density else 0,  density <= q <= 1
    out = B + lambda * sum_i w_i S(D_i)

`q_rule` says where q comes from: `given` is the parameter `q`, for a search to vary. `analytic` takes, for every output
row of D with inputs x_j of magnitude a_j and c_j = D_j a_j, the q in steps of 0.001 that brings the paper's bound on
the output's change nearest to 0, and then the mean over the rows; `analytic_rows` leaves each row its own:

    | eta (1 - density / q) sum_j c_j + eta^2 phi(p) sum_j c_j^2 / (4 q^2) + ln(2 / (1 - gamma)) |
    phi(p) = (1 - 2p) / ln((1 - p) / p),  eta = 0.45,  gamma = 0.95

The activations a_j are those of the recipe's `statistics`, and 1 (unit activations) where it names none or they leave
a tensor out. The rows of a 1-D tensor are its elements; a family that holds matrices as (inputs, outputs), as GPT-2
does, has its output rows as columns.

Differs from the paper: masks are a hash of (seed, source, tensor, index), nested in the density. q may be each
source's own; one below the density counts as the density (DARE). The analytic search runs to its end for every row
(the published code stops when most rows have passed their best, and then keeps the others where they are), starts at
the density, and leaves rows without any change out of the mean. All tensors are treated alike (there, the head, biases
and norms are never pruned: a filter on the density says so here).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from core.catalog import MethodInfo
from core.params import ChoiceParam, FloatParam
from merging.dropping import divisor, key_words
from merging.kernels import Block, Inputs, Method, Number, Step, is_one
from merging.randomness import threshold
from merging.reductions import ordered_sum
from merging.rows import Axis, sums
from merging.specs import DENSITY, LAMBDA, TASK_WEIGHT

ETA, GAMMA = 0.45, 0.95
#: Rows whose 1000 values of q are in memory at once.
ROWS = 64


def kernel(inputs: Inputs) -> Step:
    """Drop, divide by q, add up."""
    weights, densities, factor = inputs.numbers("weight"), inputs.values("density"), inputs.number("lambda")
    rule, pairs = inputs.flag("q_rule"), list(zip(inputs.others, densities, strict=True))
    by_row = rule == "analytic_rows"
    if rule == "given":
        scales = [_given(density, q) for density, q in zip(densities, inputs.numbers("q"), strict=True)]
    else:
        scales = [] if by_row else [1.0 / _mean_q(inputs, position, density) for position, density in pairs]
    return Step(
        merged,
        numbers=(*weights, *(threshold(density) for density in densities), *scales, factor),
        words=key_words(inputs),
        flags={"by_row": by_row, "factor": not is_one(factor)},
        fields=tuple(_row_scales(inputs, *pair) for pair in pairs) if by_row else (),
        indexed=True,
    )


def merged(block: Block, *, by_row: bool, factor: bool) -> Tensor:
    """Formula: numbers are weights, thresholds of the masks, the 1/q unless they are fields, and lambda; words keys."""
    count = len(block.others)
    scales = block.fields if by_row else block.numbers[2 * count : 3 * count]
    total = None
    for i, delta in enumerate(block.deltas()):
        term = delta * block.kept(2 * i, count + i) * scales[i] * block.numbers[i]
        total = term if total is None else total + term
    assert total is not None
    if factor:
        total = total * block.numbers[-1]
    return total + block.base


def _given(density: float, q: Number) -> Number:
    """1/q; 1 where nothing is dropped or nothing left."""
    return divisor(density, q) if 0.0 < density < 1.0 else 1.0


def _mean_q(inputs: Inputs, position: int, density: float) -> float:
    """The analytic q of a tensor."""
    changed, found = _analytic(inputs, position, density)
    rows = int(torch.count_nonzero(changed))
    return ordered_sum(found.numel(), lambda a, b: (found * changed)[a:b]) / rows if rows else 1.0


def _row_scales(inputs: Inputs, position: int, density: float) -> Tensor:
    """1/q of every row, in the shape of a field."""
    _, found = _analytic(inputs, position, density)
    scales = (1.0 / found).float()
    if inputs.inputs_first:
        return scales.reshape(1, inputs.shape[-1])
    return scales.reshape((*inputs.shape[:-1], 1) if len(inputs.shape) > 1 else inputs.shape)


def _analytic(inputs: Inputs, position: int, density: float) -> tuple[Tensor, Tensor]:
    """Which rows have changed, and their analytic q, both (rows,) float64."""
    plain, squared = _row_sums(inputs, position)
    changed = (squared > 0.0).double()
    if not 0.0 < density < 1.0:
        return changed, torch.ones_like(squared)
    starts = range(0, squared.numel(), ROWS)
    return changed, torch.cat([best_q(density, plain[s : s + ROWS], squared[s : s + ROWS]) for s in starts])


def best_q(density: float, plain: Tensor, squared: Tensor) -> Tensor:
    """The q of every row that brings the bound nearest to 0, the largest of equal ones.

    Args:
        density: the share kept, in (0, 1).
        plain: (rows,) float64, sum_j c_j.
        squared: (rows,) float64, sum_j c_j^2.
    """
    steps = [density, *(step / 1000 for step in range(math.floor(density * 1000) + 1, 1000))]
    q = torch.tensor(steps, dtype=torch.float64, device=plain.device)
    first = (1.0 - density / q) * ETA * plain.unsqueeze(1)
    second = squared.unsqueeze(1) * (ETA**2 * phi(1.0 - density) / 4.0) / (q * q)
    bound = (first + second + math.log(2.0 / (1.0 - GAMMA))).abs()
    return torch.where(bound == bound.amin(dim=1, keepdim=True), q, 0.0).amax(dim=1)


def phi(p: float) -> float:
    """(1 - 2p) / ln((1 - p) / p), whose limit at p = 1/2 is 1/2."""
    return 0.5 if abs(p - 0.5) < 1e-6 else (1.0 - 2.0 * p) / math.log((1.0 - p) / p)


def _row_sums(inputs: Inputs, position: int) -> tuple[Tensor, ...]:
    """sum_j c_j and sum_j c_j^2 of every output row, (rows,) float64; kept where they rest on unit activations."""
    assert inputs.base is not None
    given, columns = inputs.activations, inputs.columns
    axis: Axis = "columns" if inputs.inputs_first else "rows"
    if len(inputs.shape) < 2:
        change = inputs.delta(position, 0, inputs.elements).double()
        change = change if given is None else change * given.double()
        return change, change * change

    def change_of(start: int, stop: int) -> Tensor:
        change = inputs.delta(position, start, stop).double()
        if given is None:
            return change
        place = torch.arange(start, stop, device=change.device)
        return change * given.double()[place // columns if inputs.inputs_first else place % columns]

    def taken() -> tuple[Tensor, ...]:
        plain = sums(inputs, axis, change_of)
        return plain.flatten(), sums(inputs, axis, lambda start, stop: change_of(start, stop) ** 2).flatten()

    key = ("darex q", axis, inputs.content[position], inputs.content[inputs.base], inputs.shape)
    return inputs.statistics.tensors(key, taken) if given is None else taken()


METHOD = Method(
    info=MethodInfo(
        name="darex_q",
        version=2,
        summary="Random drop with a rescaling of its own, searched or analytic (DAREx-q).",
        needs_base=True,
        random=True,
        symmetric=True,
        idempotent=False,
        smooth=("weight", "q", "lambda"),
        measured=True,
        params=(
            TASK_WEIGHT,
            DENSITY,
            FloatParam(
                name="q",
                default=1.0,
                low=0.001,
                high=1.0,
                search_low=0.1,
                search_high=1.0,
                scope="source",
                about="kept entries are divided by it: from the density (DARE) to 1 (no rescaling)",
            ),
            ChoiceParam(
                name="q_rule",
                default="given",
                choices=("given", "analytic", "analytic_rows"),
                about="q itself, or the paper's bound, per tensor or per row: with unit activations unless the recipe "
                "names statistics of them",
            ),
            LAMBDA,
        ),
    ),
    kernel=kernel,
)
