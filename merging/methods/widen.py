"""WIDEN: weights disentangled into magnitudes and directions, merged by how much each column's have changed.

Paper: Extend model merging from fine-tuned to pre-trained large language models via weight disentanglement
(arXiv 2408.03092), section 3.

    of a matrix W [out, in], column j:  m_j = |W_j|;  change of magnitude |m_j - m_j(B)|, of direction 1 - cos(W_j, B_j)
    each change is ranked among the columns of its model, ascending:  z_j = rank / in, in [0, 1)
    S = softmax over the models of z_j, but score_calibration_value where z_j > above_average_value_ratio * mean of z
    out = B + sum_i (S_i of the magnitudes + S_i of the directions) / 2 * D_i

Of an embedding every row is a column: a token's vector. 1-D tensors are scored on |D| itself, unranked.

Differs from the paper: columns that change alike are ranked by their index. A column that is zero in both models has
not turned, one that is zero in one of them has turned by 1. The columns are those of tensors as they are stored, and
families whose embedding is not known by name have none.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from core.architectures import architectures
from core.catalog import MethodInfo
from core.params import FloatParam
from merging.kernels import Inputs, Method, Step
from merging.rows import Axis, dots
from merging.scalars import value
from merging.spheres import combined_by_field


def kernel(inputs: Inputs) -> Step:
    """A score for every task vector and column, or element of a 1-D tensor."""
    if len(inputs.shape) < 2:
        scores = _scores(inputs, torch.stack([_sizes(inputs, position) for position in inputs.others]))
        return combined_by_field(inputs, [_field(inputs, score, inputs.shape) for score in scores])
    axis: Axis = "rows" if inputs.name in _tables() else "columns"
    ranks = [_ranks(inputs, axis, position) for position in inputs.others]
    magnitudes, directions = (_scores(inputs, torch.stack([pair[kind] for pair in ranks])) for kind in (0, 1))
    shape = (*inputs.shape[:-1], 1) if axis == "rows" else (1, *inputs.shape[1:])
    return combined_by_field(inputs, [_field(inputs, score, shape) for score in (magnitudes + directions) * 0.5])


@cache
def _tables() -> frozenset[str]:
    """Names of tensors that have a vector per row."""
    return frozenset(name for family in architectures().values() for name in family.embed)


def _sizes(inputs: Inputs, position: int) -> Tensor:
    """|D| of every element, float64 on the host."""
    return inputs.delta(position, 0, inputs.elements).abs().double().cpu()


def _ranks(inputs: Inputs, axis: Axis, position: int) -> tuple[Tensor, ...]:
    """z of the magnitudes and of the directions, (columns,) float64 on the host; the same for every candidate."""
    assert inputs.base is not None
    key = ("widen", axis, inputs.content[position], inputs.content[inputs.base], inputs.shape)
    return inputs.statistics.tensors(key, lambda: tuple(_ranked(change) for change in _changes(inputs, axis, position)))


def _changes(inputs: Inputs, axis: Axis, position: int) -> tuple[Tensor, Tensor]:
    """How much the magnitudes and the directions of the columns have changed."""
    assert inputs.base is not None
    pairs = ((position, position), (inputs.base, inputs.base), (position, inputs.base))
    ours, theirs, product = (dots(inputs, axis, *pair, deltas=False).flatten().cpu() for pair in pairs)
    ours, theirs = ours.sqrt(), theirs.sqrt()
    there = (ours > 0.0) & (theirs > 0.0)
    cosine = product / torch.where(there, ours, 1.0) / torch.where(there, theirs, 1.0)
    turned = torch.where(there, 1.0 - cosine, (ours != theirs).double())
    return (ours - theirs).abs(), turned


def _ranked(change: Tensor) -> Tensor:
    order = torch.argsort(change, stable=True)
    places = torch.arange(order.numel(), dtype=torch.float64) / order.numel()
    return torch.zeros_like(places).scatter(0, order, places)


def _scores(inputs: Inputs, significance: Tensor) -> Tensor:
    """S, (models, columns) float64, from the significance of the same shape."""
    # The host's own exp, one number at a time, is the same on every worker.
    powers = torch.tensor([math.exp(z) for z in significance.flatten().tolist()], dtype=torch.float64)
    powers = powers.reshape(significance.shape)
    total = powers[0]
    for row in powers[1:]:
        total = total + row
    ratio, calibrated = value(inputs.number("above_average_value_ratio")), inputs.number("score_calibration_value")
    means = torch.tensor([[math.fsum(row) / len(row)] for row in significance.tolist()], dtype=torch.float64)
    important = significance > means * ratio
    return torch.where(important, torch.as_tensor(calibrated, dtype=torch.float64), powers / total)


def _field(inputs: Inputs, score: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The score as a field; in float64 where a derivative is wanted."""
    carried = isinstance(inputs.number("score_calibration_value"), Tensor)
    return (score if carried else score.float()).reshape(shape).to(inputs.device)


METHOD = Method(
    info=MethodInfo(
        name="widen",
        summary="Task vectors scored by column, by change of magnitude and of direction (WIDEN).",
        needs_base=True,
        symmetric=True,
        idempotent=False,
        smooth=("score_calibration_value",),
        params=(
            FloatParam(
                name="above_average_value_ratio",
                default=1.0,
                low=0.0,
                search_low=0.5,
                search_high=2.0,
                about="columns that changed more than this times the average count as important",
            ),
            FloatParam(
                name="score_calibration_value",
                default=1.0,
                search_low=0.2,
                search_high=1.2,
                about="the score of important columns",
            ),
        ),
    ),
    kernel=kernel,
)
