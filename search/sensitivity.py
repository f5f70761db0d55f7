"""How the score answers to each layer group and source around the best candidate: a local fit with intervals.

Within one structure (the same choices: method, layout) a candidate's numbers are brought to [0, 1] over their search
intervals, z, and measured from those of the best candidate, c. The model is

    score = a + sum_j b_j (z_j - c_j) + sum_j q_j (z_j - c_j)^2 + noise,

Bayesian linear regression with normal priors N(0, t^2) on b and q, a flat one on a, and noise of variance v_i + s^2,
where v_i is what the score's own items leave open and s^2 what the model cannot express. t and s are those of a small
grid under which the scores are likeliest (the evidence; MacKay, Bayesian Interpolation, Neural Computation 1992). With
more than 60 numbers the squares are left out.

The sensitivity of a number is b_j: points of score per whole search interval, at the best candidate. That of a source
is the sum over its numbers (all moved together); that of a layer group the root of the sum of squares over its numbers
(how much any of it matters), with the interval of 400 draws from the posterior.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from core.noun import canonical_json
from core.params import ChoiceParam, FloatParam
from core.space import Hole, SearchSpace
from search.past import Past

Floats = NDArray[np.float64]

#: Results of one structure below which nothing is fitted, and numbers above which squares are left out.
LEAST, SQUARES = 6, 60
DRAWS = 400
_GROUP = re.compile(r"g(\d+)\Z")
_NORMAL_95 = 1.959963984540054
#: The model, for whoever reads its slopes.
FORMULA = (
    "score = a + sum b_j (z_j - c_j) + sum q_j (z_j - c_j)^2; z_j in [0, 1] over the search interval, c the best "
    "candidate; Bayesian linear regression by evidence; points = 100 b_j per whole interval, 95 % of the posterior"
)


class Fit(NamedTuple):
    """The posterior of the slopes: mean and covariance, per whole interval, as shares; prior and lack of fit."""

    mean: Floats
    covariance: Floats
    prior_sd: float
    lack_sd: float


def sensitivity(space: SearchSpace, pasts: Sequence[Past]) -> list[dict[str, Any]]:
    """Per structure with enough results: slopes of every number, and of sources and layer groups, in points.

    Each slope is `{"points", "low", "high"}`, the interval holding 95 % of the posterior.
    """
    structures: dict[str, list[Past]] = {}
    for past in pasts:
        if past.score is not None and past.state in ("complete", "stopped"):
            structures.setdefault(canonical_json(_choices(space, past)), []).append(past)
    found = [_of_structure(space, mine) for _, mine in sorted(structures.items()) if len(mine) >= LEAST]
    return [one for one in found if one["parameters"]]


def fit(inputs: Floats, scores: Floats, variances: Floats, *, squares: bool) -> Fit:
    """The posterior of the slopes at z = c.

    Args:
        inputs: (n, d) of z - c.
        scores, variances: (n,), as shares.
        squares: whether the model has squares.
    """
    design = np.hstack([inputs, inputs**2]) if squares else inputs
    spread = max(float(scores.std()), 1e-4)
    best: tuple[float, float, float] | None = None
    for prior, lack in itertools.product((0.3, 1.0, 3.0), (0.03, 0.1, 0.3, 1.0)):
        likely = _evidence(design, scores, variances, prior * spread, lack * spread)
        if best is None or likely > best[0]:
            best = likely, prior * spread, lack * spread
    assert best is not None
    _, prior, lack = best
    noise = variances + lack**2
    gram = np.hstack([np.ones((len(scores), 1)), design])
    precision = gram.T @ (gram / noise[:, None])
    precision[np.arange(1, len(precision)), np.arange(1, len(precision))] += 1 / prior**2
    covariance: Floats = np.asarray(np.linalg.inv(precision), dtype=np.float64)
    mean = covariance @ (gram.T @ (scores / noise))
    slopes = slice(1, 1 + inputs.shape[1])
    return Fit(mean[slopes], covariance[slopes, slopes], prior, lack)


def _evidence(design: Floats, scores: Floats, variances: Floats, prior: float, lack: float) -> float:
    """Log density of the scores under the model, its level taken out."""
    covariance = prior**2 * design @ design.T
    covariance[np.diag_indices(len(scores))] += variances + lack**2
    factor = np.linalg.cholesky(covariance)
    ones = np.linalg.solve(factor, np.ones(len(scores)))
    told = np.linalg.solve(factor, scores)
    level = float(ones @ told / (ones @ ones))
    rest = told - level * ones
    return float(-0.5 * rest @ rest - np.log(np.diag(factor)).sum() - 0.5 * math.log(ones @ ones))


def _of_structure(space: SearchSpace, mine: Sequence[Past]) -> dict[str, Any]:
    best = max(mine, key=lambda past: (past.state == "complete", past.score or 0.0, -past.number))
    holes = [hole for hole in space.active(best.values) if _varies(hole, mine)]
    found: dict[str, Any] = {"when": _choices(space, best), "trials": len(mine), "at": best.number}
    if not holes:
        return found | {"parameters": [], "sources": [], "layer_groups": []}
    points = np.array([[_unit(hole, past.values[hole.name]) for hole in holes] for past in mine])
    centre = np.array([_unit(hole, best.values[hole.name]) for hole in holes])
    scores = np.array([float(past.score or 0.0) for past in mine])
    variances = np.array([past.variance for past in mine])
    fitted = fit(points - centre, scores, variances, squares=len(holes) <= SQUARES)
    cells = [_cell(space, hole.name) for hole in holes]
    return found | {
        "prior_points": 100 * fitted.prior_sd,
        "lack_points": 100 * fitted.lack_sd,
        "parameters": [
            {"name": hole.name, **cell, **_slope(fitted, [place])}
            for place, (hole, cell) in enumerate(zip(holes, cells, strict=True))
        ],
        "sources": [
            {"source": name, **_slope(fitted, [i for i, cell in enumerate(cells) if cell["source"] == name])}
            for name in _named(cells, "source")
        ],
        "layer_groups": [
            {"layer_group": name, **_size(fitted, [i for i, cell in enumerate(cells) if cell["layer_group"] == name])}
            for name in _named(cells, "layer_group")
        ],
    }


def _slope(fitted: Fit, places: Sequence[int]) -> dict[str, float]:
    """The slope of moving these numbers together."""
    mean = float(fitted.mean[places].sum())
    sd = math.sqrt(max(float(fitted.covariance[np.ix_(places, places)].sum()), 0.0))
    return _points(mean, mean - _NORMAL_95 * sd, mean + _NORMAL_95 * sd)


def _size(fitted: Fit, places: Sequence[int]) -> dict[str, float]:
    """The length of the slope over these numbers: median and interval of draws from the posterior."""
    block = fitted.covariance[np.ix_(places, places)]
    draws = np.random.default_rng(0).multivariate_normal(fitted.mean[places], block, DRAWS, method="eigh")
    low, middle, high = np.quantile(np.sqrt((draws**2).sum(axis=1)), (0.025, 0.5, 0.975))
    return _points(float(middle), float(low), float(high))


def _points(middle: float, low: float, high: float) -> dict[str, float]:
    return {"points": 100 * middle, "low": 100 * low, "high": 100 * high}


def _cell(space: SearchSpace, name: str) -> dict[str, Any]:
    """Which source and which layer group a number belongs to, by its name."""
    parts = name.split(".")
    group = _GROUP.match(parts[-1])
    source = next((model for model in space.models if f".{model}." in f"{name}."), None)
    return {"source": source, "layer_group": int(group[1]) if group else None}


def _named(cells: Sequence[dict[str, Any]], key: str) -> list[Any]:
    return sorted({cell[key] for cell in cells if cell[key] is not None})


def _choices(space: SearchSpace, past: Past) -> dict[str, Any]:
    """The choices of a candidate: what structure it has."""
    return {
        hole.name: past.values[hole.name]
        for hole in space.active(past.values)
        if isinstance(hole.spec, ChoiceParam) and hole.name in past.values
    }


def _varies(hole: Hole, mine: Sequence[Past]) -> bool:
    return not isinstance(hole.spec, ChoiceParam) and len({past.values.get(hole.name) for past in mine}) > 1


def _unit(hole: Hole, value: Any) -> float:
    """A number in [0, 1] over its search interval."""
    spec = hole.spec
    assert not isinstance(spec, ChoiceParam)
    low, high = float(spec.search_low), float(spec.search_high)
    if isinstance(spec, FloatParam) and spec.log:
        return (math.log(value) - math.log(low)) / (math.log(high) - math.log(low))
    return (float(value) - low) / (high - low)
