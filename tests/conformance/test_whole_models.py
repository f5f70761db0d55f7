"""Merges of tiny Llamas from mergekit's own configurations: every tensor gets the values that mergekit gives it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks.oracle.models import write
from core.errors import RecipeError
from core.mergekit import from_mergekit
from core.recipe import resolve
from merging.compute import compute
from merging.methods import method_of
from merging.plan import plan
from tests.conformance.oracle_cases import GOLDEN, cases, golden
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


SETTINGS = {case.id.rsplit("/", 1)[0]: case for case in cases().values()}


@pytest.mark.parametrize("case", SETTINGS.values(), ids=SETTINGS.keys())
def test_a_configuration_means_the_values_under_which_its_method_is_compared(models, case):
    recipe = resolve(from_mergekit(configuration(case)).recipe, models.models)
    asked, info = case.asked(), method_of(case.method).info
    specs = info.params
    whole = {spec.name: spec.default for spec in specs if spec.scope != "source"}
    each = {spec.name: spec.default for spec in specs if spec.scope == "source"}
    digests = [models.models[name].weights_digest for name in (*asked.names, *filter(None, [asked.base]))]
    entry = recipe.layers[0]
    values = {
        recipe.sources[source].weights: {**({} if place == entry.base else info.implied(source=True)), **own}
        for place, ((source, _), own) in enumerate(zip(entry.sources, entry.groups[0].source_params, strict=True))
    }
    assert list(values) == digests
    assert [values[digest] for digest in digests[: len(asked.names)]] == [{**each, **own} for own in asked.sources]
    assert {**info.implied(source=False), **entry.groups[0].params} == {**whole, **asked.params}
    assert entry.groups[0].scale == asked.scale
    assert (None if entry.base is None else digests[entry.base]) == (asked.base and digests[-1])


def test_weights_of_an_average_that_cancel_are_refused_before_anything_is_merged(models):
    weights = {"a": 1.0, "b": -0.6, "c": -0.4}
    config = {
        "merge_method": "linear",
        "models": [{"model": name, "parameters": {"weight": weight}} for name, weight in weights.items()],
        "dtype": "float32",
    }
    with pytest.raises(RecipeError, match="must not sum to 0"):
        resolve(from_mergekit(config).recipe, models.models)


def configuration(case):
    """The case as a mergekit configuration over whole models."""
    own = {name: value for name, value in case.parameters.items() if isinstance(value, dict)}
    names = [*case.models] if case.base != "a" else [case.base, *case.models]
    given = [
        {"model": model, "parameters": {name: value[model] for name, value in own.items() if model in value}}
        for model in names
    ]
    return {
        "merge_method": case.method,
        "base_model": case.base,
        "models": given,
        "parameters": {name: value for name, value in case.parameters.items() if name not in own},
        "dtype": "float32",
    }
