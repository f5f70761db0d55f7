import pytest
from families import family

from core.recipe import resolve
from core.smooth import Coordinate, axes, by_tensor, numbers, smooth_holes, with_tensor_values
from core.space import SearchSpace
from core.space_spec import SpaceSpec

MODELS = family("base", "a", "b", "c", layers=4)


def space(*methods, **options):
    merge = {"family": "merge", "methods": methods, "base": "base"} | options
    return SearchSpace(SpaceSpec.model_validate({"families": [merge]}), tuple(MODELS), depth=4, save_dtype="float32")


def start(compiled, place=0):
    return compiled.read(compiled.uniform()[place])


def test_weights_are_smooth_and_densities_are_not():
    compiled = space("ties")
    assert [hole.name for hole in smooth_holes(compiled, start(compiled))] == [
        f"merge.ties.weight.{name}" for name in "abc"
    ]


def test_only_the_chosen_method_has_axes():
    compiled = space("linear", "slerp")
    values = start(compiled, 1)
    assert [axis.name for axis in axes(compiled, values, MODELS)] == ["merge.slerp.t"]


def test_a_layout_has_no_axes():
    layout = {"family": "layout", "presets": ["dus"], "sources": ["a"]}
    compiled = SearchSpace(SpaceSpec.model_validate({"families": [layout]}), tuple(MODELS), depth=4)
    assert axes(compiled, {"layout.dus.m": 1}, MODELS) == ()


def test_a_fixed_interval_is_no_axis():
    compiled = space("linear", params={"weight": {"low": 0.5, "high": 0.5}})
    assert axes(compiled, start(compiled), MODELS) == ()


def test_every_tensor_of_every_source_belongs_to_exactly_one_hole():
    compiled = space("task_arithmetic", layer_groups=2, blocks=["mlp"])
    found = axes(compiled, start(compiled), MODELS)
    assert len(found) == 3 * 2 * 2
    reached = [coordinate for axis in found for coordinate in axis.coordinates]
    tensors = {coordinate.tensor for coordinate, _ in numbers(resolve(compiled.uniform()[0], MODELS))}
    assert len(reached) == len(set(reached)) == 3 * len(tensors)


def test_an_axis_reaches_its_own_block_group_and_source():
    compiled = space("task_arithmetic", layer_groups=2, blocks=["mlp"])
    by_name = {axis.name: axis for axis in axes(compiled, start(compiled), MODELS)}
    names = [source.weights for source in resolve(compiled.uniform()[0], MODELS).sources]
    mine = names.index(MODELS["b"].weights_digest)
    assert by_name["merge.task_arithmetic.weight.b.mlp.g1"].coordinates == (
        Coordinate("model.layers.2.mlp.up_proj.weight", "weight", mine),
        Coordinate("model.layers.3.mlp.up_proj.weight", "weight", mine),
    )


def test_the_slope_along_an_axis_is_the_sum_over_what_it_reaches():
    compiled = space("slerp", layer_groups=4)
    axis = axes(compiled, start(compiled), MODELS)[1]
    slopes = dict.fromkeys(axis.coordinates, 2.0)
    assert axis.slope({**slopes, Coordinate("elsewhere", "t", None): 7.0}) == 2.0 * len(axis.coordinates)


def test_an_axis_starts_where_the_values_are():
    compiled = space("task_arithmetic")
    values = {**start(compiled), "merge.task_arithmetic.weight.b": 1.25}
    assert [axis.start for axis in axes(compiled, values, MODELS)] == [1 / 3, 1.25, 1 / 3]


@pytest.mark.parametrize(("method", "groups"), [("task_arithmetic", 1), ("linear", 2), ("slerp", 4), ("ties", 3)])
def test_values_of_single_tensors_come_out_where_they_were_put(method, groups):
    compiled = space(method, layer_groups=groups, blocks=["self_attn"])
    values = start(compiled)
    fine = by_tensor(axes(compiled, values, MODELS))
    cells = {axis.coordinates[0]: 0.01 * (place + 1) for place, axis in enumerate(fine)}
    recipe = with_tensor_values(compiled.fill(values), cells, MODELS)
    found = dict(numbers(resolve(recipe, MODELS)))
    assert {coordinate: found[coordinate] for coordinate in cells} == cells


def test_other_values_stay_as_they_were():
    compiled = space("ties")
    values = start(compiled)
    fine = by_tensor(axes(compiled, values, MODELS))
    recipe = with_tensor_values(compiled.fill(values), {axis.coordinates[0]: 0.4 for axis in fine}, MODELS)
    before, after = (dict(numbers(resolve(each, MODELS))) for each in (compiled.fill(values), recipe))
    assert {c: v for c, v in before.items() if c.param != "weight"} == {
        c: v for c, v in after.items() if c.param != "weight"
    }


def test_a_recipe_by_tensor_has_one_entry_per_kind_of_tensor():
    compiled = space("linear")
    fine = by_tensor(axes(compiled, start(compiled), MODELS))
    recipe = with_tensor_values(compiled.fill(start(compiled)), {a.coordinates[0]: 0.5 for a in fine}, MODELS)
    assert [entry["filter"] for entry in recipe.merge.params["weight"]["a"]] == [
        "model.embed_tokens.weight",
        "self_attn.q_proj.weight",
        "input_layernorm.weight",
        "mlp.up_proj.weight",
        "model.norm.weight",
        "lm_head.weight",
    ]
