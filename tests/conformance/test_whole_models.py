"""Merges of tiny Llamas from mergekit's own configurations: every tensor gets the values that mergekit gives it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks.oracle.models import write
from core.mergekit import from_mergekit
from core.recipe import resolve
from merging.compute import compute
from merging.plan import plan
from tests.conformance.oracle_cases import GOLDEN, golden
from tests.merging.conftest import Family

CONFIGURATIONS = json.loads((GOLDEN / "configurations.json").read_text())


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The checkpoints that mergekit merged."""
    folder = tmp_path_factory.mktemp("golden")
    for name in ("a", "b", "c", "base"):
        write(folder / name, held("models", name))
    return Family(folder)


def held(file, name):
    return {key.split("/", 1)[1]: value for key, value in golden(file).items() if key.startswith(f"{name}/")}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_configuration_gives_the_model_that_mergekit_makes_of_it(models, name):
    recipe = resolve(from_mergekit(CONFIGURATIONS[name]).recipe, models.models)
    parents = models.parents()
    ours = {planned.name: compute(planned, parents).numpy() for planned in plan(recipe, parents.headers)}
    theirs = held("models", name)
    assert ours.keys() == theirs.keys()
    for tensor, expected in theirs.items():
        apart = np.abs(ours[tensor] - expected).max()
        assert apart <= 1e-6 * np.abs(expected).max(), tensor


def test_a_value_that_is_looked_up_elsewhere_would_be_noticed(models):
    """The same models under slightly other gradients differ by far more than the tolerance."""
    configuration = json.loads(json.dumps(CONFIGURATIONS["curves of t"]))
    configuration["parameters"]["t"][0]["value"][1] = 0.51
    parents = models.parents()
    recipe = resolve(from_mergekit(configuration).recipe, models.models)
    theirs = held("models", "curves of t")
    apart = {
        planned.name: np.abs(compute(planned, parents).numpy() - theirs[planned.name]).max()
        for planned in plan(recipe, parents.headers)
    }
    assert {name.split(".")[3] for name, distance in apart.items() if distance > 1e-4} == {"self_attn"}
