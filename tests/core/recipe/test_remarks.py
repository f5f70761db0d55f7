import pytest
from families import family

from core.recipe import Recipe, resolve
from core.recipe.remarks import remarks

FAMILY = family("base", "a", "b")


def told(**form):
    recipe = Recipe.model_validate({"sources": [{"name": name, "model": name} for name in FAMILY], **form})
    return remarks(recipe, resolve(recipe, FAMILY), FAMILY.values())


def ties(density):
    return {"merge": {"method": "ties", "base": "base", "params": {"density": density}}}


def test_a_filter_that_meets_no_tensor_is_told():
    value = [{"filter": "mpl", "value": 0.1}, {"filter": "*", "value": 0.5}]
    assert told(**ties(value)) == ("the filter 'mpl' of 'density' has no effect: it is part of no tensor's name.",)
    assert len(told(**ties({"a": value, "b": [{"filter": "selfattn", "value": {"groups": [0.1, 0.2]}}]}))) == 2


@pytest.mark.parametrize("wanted", ["mlp", "layers.3.", "", "*", None])
def test_a_filter_that_meets_one_is_not(wanted):
    assert told(**ties([{"filter": wanted, "value": 0.1}])) == ()


def test_a_filter_may_meet_a_name_in_a_source_alone():
    part = {
        "sources": [{"source": "a", "layers": [2, 3]}],
        "params": {"scale": {"a": [{"filter": "layers.3.", "value": 2}]}},
    }
    assert told(slices=[part]) == ()


def test_factors_on_repeats_that_do_not_occur_are_told():
    for layers, count in (([0, 1], 1), ([0, 0], 0)):
        assert (
            len(told(slices=[{"sources": [{"source": "a", "layers": layers}]}], repeated={"attention": 0.5})) == count
        )


@pytest.mark.parametrize(
    ("dtype", "rho", "lost"), [("bfloat16", 0.004, True), ("bfloat16", 0.008, False), ("float32", 0.004, False)]
)
def test_a_radius_that_rounding_takes_away_in_part_is_told_with_its_code(dtype, rho, lost):
    draw = {"generator": "ab" * 32, "selectors": ["norms"], "rho": rho}
    merge = {"method": "passthrough", "sources": ["base"]}
    found = told(merge=merge, generation=draw, save_dtype=dtype)
    assert [line.split(":")[0] for line in found] == ["`radius_lost`"] * lost
