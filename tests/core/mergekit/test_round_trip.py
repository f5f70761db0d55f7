"""Every configuration that mergekit takes means the same here, and comes back meaning it still."""

from __future__ import annotations

import pytest
from configurations import HERE, LAYERS, MODELS, configurations, mergekits_value, staged
from families import family
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from core.catalog import catalog
from core.errors import RecipeError
from core.mergekit import from_mergekit, to_mergekit
from core.mergekit.methods import METHODS
from core.recipe import resolve_named
from core.recipe.output import walk

FAMILY = family(*MODELS, layers=LAYERS)
drawn = settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


def resolved(config):
    recipe = from_mergekit(config).recipe
    try:
        return recipe, *resolve_named(recipe, FAMILY)
    except RecipeError as error:
        # Weights that happen to sum to zero, or a trimming that no method allows.
        reject() if "sum to 0" in str(error) else pytest.fail(f"{config}: {error}")


@drawn
@given(st.data())
def test_a_configuration_survives_the_way_there_and_back(data):
    there_and_back(data.draw(configurations() | staged()))


@pytest.mark.slow
@settings(max_examples=800, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_a_great_many_configurations_survive_the_way_there_and_back(data):
    there_and_back(data.draw(configurations() | staged()))


def there_and_back(config):
    recipe, first, _ = resolved(config)
    written = to_mergekit(recipe)
    again, second, _ = resolved(written.config)
    assert second.digest() == first.digest(), written.config
    assert to_mergekit(again).documents == written.documents


@pytest.mark.parametrize("method", HERE)
@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(st.data())
def test_every_tensor_gets_the_value_that_mergekit_gives_it(method, data):
    config = data.draw(configurations(method))
    _, found, names = resolved(config)
    for tensor in walk(found):
        for parameter in METHODS[method].parameters:
            check(config, found, tensor, parameter, names)


def check(config, found, tensor, parameter, names):
    ours = {"scale", *(spec.name for spec in catalog().method(tensor.entry.method).params)}
    if not parameter.effect or parameter.name not in ours:
        return
    part, _, t = place_of(config, found, tensor)
    outer = [part.get("parameters", {}), config["parameters"]] if "slices" in config else [config["parameters"]]
    for position, (source, own_layer) in enumerate(tensor.entry.sources):
        model = names[source]
        if parameter.per == "all":
            wanted = mergekits_value(parameter, outer, tensor.name, t)
            given_value = tensor.params[parameter.name]
        elif position == tensor.entry.base:
            continue
        else:
            own = [s.get("parameters", {}) for s in part["sources"] if s["model"] == model]
            name = tensor.name if own_layer < 0 else f"model.layers.{own_layer}.{tensor.suffix}"
            wanted = mergekits_value(parameter, [*own, *outer], name, t)
            given_value = tensor.group.scale
            if parameter.name != "scale":
                given_value = tensor.source_params[position][parameter.name]
        wanted = parameter.ours.get(wanted, wanted)
        assert given_value == pytest.approx(wanted, rel=1e-12) if not isinstance(wanted, str) else given_value == wanted


def place_of(config, found, tensor):
    """The slice that a tensor is in, its layer and mergekit's t."""
    parts = config.get("slices") or [
        {"sources": [{**model, "layer_range": [0, LAYERS]} for model in config["models"]], "parameters": {}}
    ]
    layers = [(part, i, n) for part in parts for n in [part_length(part)] for i in range(n)]
    if tensor.entry is found.embed or tensor.entry is found.head:
        return parts[0 if tensor.entry is found.embed else -1], None, 0.0
    index = next(i for i, entry in enumerate(found.layers) if entry is tensor.entry)
    part, step, count = layers[index]
    return part, index, step / (count - 1) if count > 1 else 1.0


def part_length(part):
    start, stop = part["sources"][0]["layer_range"]
    return stop - start
