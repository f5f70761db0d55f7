"""What kernels say that no result exceeds is exceeded by none, and not far from what can be reached."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from merging.batches import Task
from merging.blocks import run
from merging.kernels import Inputs, Step, largest_result
from merging.methods import methods

TASK_VECTORS = [
    "task_arithmetic", "ties", "dare_linear", "dare_ties", "breadcrumbs", "breadcrumbs_ties", "della", "della_linear",
]  # fmt: skip


def looked_at(inputs_of, name: str, weights: list[float], **params) -> tuple[Inputs, Step]:
    """Three task vectors of very different sizes, as the method's kernel sees them."""
    generator = np.random.default_rng(3)
    arrays = [(generator.normal(size=(60, 50)) * size).astype(np.float32) for size in (1.0, 0.01, 300.0, 3.0)]
    *tensors, base = arrays
    given = {spec.name: spec.default for spec in methods()[name].info.params} | params
    inputs = inputs_of(tensors, base, **given)
    own = tuple({**given, "weight": weight} for weight in weights)
    peaks = tuple(float(np.abs(array).max()) for array in arrays)
    inputs = replace(inputs, source_params=(*own, {}), peaks=peaks)
    return inputs, methods()[name].kernel(inputs)


def largest(inputs: Inputs, step: Step) -> float:
    task = Task(step, inputs, torch.empty(inputs.elements), 1.0)
    run(task)
    return float(task.out.abs().max())


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("density", [0.3, 1.0])
@pytest.mark.parametrize("weights", [[0.5, 2.0, 1.5], [0.0, 0.3, 0.1], [1e-3, 1e-3, 1e-3], [-1.0, 0.5, 2.0]])
@pytest.mark.parametrize("name", TASK_VECTORS)
def test_no_result_of_task_vectors_exceeds_what_the_kernel_says(inputs_of, name, weights, density, normalize):
    params = {"normalize": normalize, "lambda": -1.3, "density": density}
    inputs, step = looked_at(inputs_of, name, weights, **params)
    told, found = largest_result(step, inputs), largest(inputs, step)
    assert found <= told * (1 + 1e-6)
    if min(weights) >= 0.0 or not normalize or name == "task_arithmetic":
        assert told < math.inf


@pytest.mark.parametrize("name", ["dare_linear", "dare_ties", "ties", "breadcrumbs"])
@pytest.mark.parametrize("rescale", ["l1", "l2"])
def test_entries_that_are_scaled_up_count_as_large_as_they_become(inputs_of, name, rescale):
    inputs, step = looked_at(inputs_of, name, [1.0, 1.0, 1.0], density=0.02, rescale=rescale)
    assert largest(inputs, step) <= largest_result(step, inputs) * (1 + 1e-6) < math.inf


@pytest.mark.parametrize("name", TASK_VECTORS)
def test_where_the_sources_are_not_known_nothing_is_said(inputs_of, name):
    inputs, _ = looked_at(inputs_of, name, [1.0, 1.0, 1.0])
    inputs = replace(inputs, peaks=())
    assert largest_result(methods()[name].kernel(inputs), inputs) == math.inf


def test_a_combination_is_at_most_the_sum_of_its_terms():
    inputs = Inputs(
        tensors=(torch.tensor([1.0, -2.0]), torch.tensor([-4.0, 3.0])),
        shape=(2,),
        name="weight",
        base=None,
        params={"normalize": True},
        source_params=({"weight": 0.5}, {"weight": -0.25}),
        keys=(),
        content=("a", "b"),
        peaks=(2.0, 4.0),
    )
    # (0.5 * 2 + 0.25 * 4) / 0.25
    assert largest_result(methods()["linear"].kernel(inputs), inputs) == 8.0
