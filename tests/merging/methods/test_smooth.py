"""The parameters that a method calls smooth: its derivatives by them, against finite differences, in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from merging.blocks import Cutter
from merging.kernels import Inputs
from merging.methods import methods
from merging.randomness import mask_key

SHAPE, STEP = (23, 17), 1e-6
#: Ways through a method that its defaults do not take.
WAYS = {
    "nuslerp": [{}, {"nuslerp_flatten": False}, {"nuslerp_flatten": False, "nuslerp_row_wise": True}],
    "multislerp": [{}, {"normalize_weights": False}],
    "delta_guided": [
        {"granularity": granularity, "temperature": temperature}
        for granularity in ("element", "row", "tensor")
        for temperature in (0.0, 0.7)
    ],
    "atlas": [{}, {"parts": 3}],
    "dare_linear": [{}, {"rescale": "q"}],
}
OPEN = {"density": 0.6, "temperature": 0.7}


def cases():
    for name, method in sorted(methods().items()):
        info = method.info
        for params in WAYS.get(name, [{}]):
            bases = (False, True) if info.optional_base else (info.needs_base,)
            yield from (
                pytest.param(info, params, based, id=f"{name}-{params}-{based}") for based in bases if info.smooth
            )


def inputs(info, params, based, values):
    """The method's sources with its defaults, some values, and the smooth parameters replaced by `values`."""
    generator = np.random.default_rng(11)
    count = max(info.min_sources, min(3, info.max_sources or 3))
    base = generator.normal(size=SHAPE)
    arrays = [base + (1 + i) * 0.2 * generator.normal(size=SHAPE) for i in range(count)] + ([base] if based else [])
    tensors = tuple(torch.from_numpy(array).float().flatten() for array in arrays)
    given = {spec.name: OPEN.get(spec.name, spec.default) for spec in info.params} | params | values
    scopes = {spec.name: spec.scope for spec in info.params}
    own = [{name: value for name, value in given.items() if scopes[name] == "source"} for _ in range(count)]
    for position, each in enumerate(own):
        each.update({name: value[position] for name, value in each.items() if isinstance(value, torch.Tensor)})
    return Inputs(
        tensors=tensors,
        shape=SHAPE,
        name="weight",
        base=count if based else None,
        params={name: value for name, value in given.items() if scopes[name] != "source"},
        source_params=(*own, *([{}] if based else [])),
        keys=tuple(mask_key(5, str(i), "weight") for i in range(len(tensors))),
        content=tuple(map(str, range(len(tensors)))),
    )


def leaves(info):
    """A value somewhere inside for every smooth parameter, of every source where it has one each; float64."""
    generator = np.random.default_rng(12)
    specs = {spec.name: spec for spec in info.params}
    count = max(info.min_sources, min(3, info.max_sources or 3))
    found = {}
    for name in info.smooth:
        low, high = specs[name].search_low, specs[name].search_high
        shape = (count,) if specs[name].scope == "source" else ()
        drawn = generator.uniform(0.3, 0.7, size=shape) if name != "q" else generator.uniform(0.7, 0.9, size=shape)
        found[name] = torch.tensor(low + (high - low) * drawn, dtype=torch.float64, requires_grad=True)
    return found


def objective(info, params, based, values):
    """A weighted sum of the result's elements."""
    one = inputs(info, params, based, values)
    step = methods()[info.name].kernel(one)
    block = Cutter(step, one, torch.float64).block(0, one.elements)
    direction = torch.from_numpy(np.random.default_rng(13).normal(size=one.elements))
    return (step.formula(block, **step.flags) * direction).sum()


@pytest.mark.parametrize(("info", "params", "based"), cases())
def test_the_derivatives_are_those_of_finite_differences(info, params, based):
    values = leaves(info)
    used = {name: value for name, value in values.items() if params.get(name) != 0.0}
    objective(info, params, based, used).backward()
    for name, leaf in used.items():
        # What a way through the method does not use has no derivative, and makes no difference.
        found = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
        for place in np.ndindex(*leaf.shape):
            ends = []
            for sign in (1, -1):
                moved = {n: v.detach().clone() for n, v in used.items()}
                moved[name][place] += sign * STEP
                ends.append(float(objective(info, params, based, moved)))
            expected = (ends[0] - ends[1]) / (2 * STEP)
            assert float(found[place]) == pytest.approx(expected, rel=1e-5, abs=1e-6), (name, place)
