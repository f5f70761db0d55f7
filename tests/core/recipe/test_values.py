import math

import pytest

from core.errors import RecipeError
from core.params import ChoiceParam, FloatParam, IntParam
from core.recipe.values import MAX_NESTING, MAX_POINTS, Place, check_form, group_of, has_filters, pick, reached

WEIGHT = FloatParam(name="weight", default=1.0, low=-2.0, high=2.0, search_low=0.0, search_high=1.0, scope="source")


def layer(index, count=5, tensor="model.layers.0.mlp.up_proj.weight"):
    return Place(tensor=tensor, index=index, count=count)


def test_a_number_is_the_same_everywhere():
    assert [pick(WEIGHT, 0.5, layer(i)) for i in range(5)] == [0.5] * 5


def test_nothing_given_takes_the_default():
    assert pick(WEIGHT, None, layer(0)) == 1.0


def test_a_gradient_is_piecewise_linear_over_the_layers():
    # Three points over five layers: t = 0, .25, .5, .75, 1 meets points at 0, .5 and 1.
    assert [pick(WEIGHT, [0.0, 1.0, 0.0], layer(i)) for i in range(5)] == [0.0, 0.5, 1.0, 0.5, 0.0]


def test_a_single_layer_takes_the_gradients_last_value():
    assert pick(WEIGHT, [0.2, 0.8], layer(0, count=1)) == 0.8


@pytest.mark.parametrize("part", ["embed", "head"])
def test_embedding_and_head_take_the_gradients_first_value(part):
    assert pick(WEIGHT, [0.2, 0.8], Place(tensor="lm_head.weight", part=part)) == 0.2


def test_a_gradient_of_choices_holds_each_until_the_next_point():
    # t = 0, .25, .5, .75, 1 over three points: int(2 t) = 0, 0, 1, 1, 2.
    rescale = ChoiceParam(name="rescale", default="none", choices=("none", "l1", "q"))
    found = [pick(rescale, ["none", "l1", "q"], layer(i)) for i in range(5)]
    assert found == ["none", "none", "l1", "l1", "q"]
    normalize = ChoiceParam(name="normalize", default=True, choices=(True, False))
    assert [pick(normalize, [False, True], layer(i)) for i in range(5)] == [False] * 4 + [True]
    assert pick(normalize, [False, True], layer(0, count=1)) is True
    assert pick(normalize, [False, True], Place(tensor="lm_head.weight", part="head")) is False


def test_groups_cut_the_stack_into_equal_parts_with_the_edges_beside_them():
    groups = {"groups": [0.1, 0.9]}
    assert [pick(WEIGHT, groups, layer(i, count=4)) for i in range(4)] == [0.1, 0.1, 0.9, 0.9]
    assert pick(WEIGHT, groups, Place(tensor="e", part="embed")) == 0.1
    assert pick(WEIGHT, groups, Place(tensor="h", part="head")) == 0.9


def test_every_group_gets_a_layer_when_there_are_enough():
    for layers in range(1, 40):
        for groups in range(1, layers + 1):
            found = [group_of(i, layers, groups) for i in range(layers)]
            assert found == sorted(found)
            assert set(found) == set(range(groups))


def test_per_source_values_may_be_gradients():
    value = {"a": 0.5, "b": [0.0, 1.0]}
    assert pick(WEIGHT, value, layer(4), "a") == 0.5
    assert pick(WEIGHT, value, layer(4), "b") == 1.0


def test_the_first_filter_that_is_part_of_the_name_wins():
    value = [{"filter": "up_proj", "value": 0.1}, {"filter": "mlp", "value": 0.2}, {"value": 0.3}]
    assert pick(WEIGHT, value, layer(0)) == 0.1
    assert pick(WEIGHT, value, layer(0, tensor="model.layers.0.mlp.down_proj.weight")) == 0.2
    assert pick(WEIGHT, value, layer(0, tensor="model.norm.weight")) == 0.3


def test_without_a_matching_filter_the_default_holds():
    assert pick(WEIGHT, [{"filter": "attn", "value": 0.1}], layer(0)) == 1.0


@pytest.mark.parametrize(
    "value",
    [{"a": 0.5}, [], [True, 0.5], [{"filter": "x"}], [{"value": 1, "other": 2}], {"groups": []}, object(), [0.1, "x"]],
)
def test_malformed_values_are_refused_by_name(value):
    with pytest.raises(RecipeError, match="weight"):
        pick(WEIGHT, value, layer(0), "b")


def test_bounds_are_accepted_and_just_outside_is_refused():
    assert pick(WEIGHT, 2.0, layer(0)) == 2.0
    assert pick(WEIGHT, -2.0, layer(0)) == -2.0
    for outside in (2.0000001, -2.0000001):
        with pytest.raises(RecipeError, match=r"\[-2.0, 2.0\]"):
            pick(WEIGHT, outside, layer(0))


def test_types_are_not_guessed():
    count = IntParam(name="m", default=1, low=1, search_low=1, search_high=4)
    choice = ChoiceParam(name="normalize", default=True, choices=(True, False))
    assert pick(count, 3.0, layer(0)) == 3
    for spec, wrong in ((count, 2.5), (count, True), (WEIGHT, "1"), (choice, 1), (choice, "true")):
        with pytest.raises(RecipeError):
            pick(spec, wrong, layer(0))


FREE = FloatParam(name="weight", default=1.0, search_low=0.0, search_high=1.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 10**400], ids=lambda v: str(v)[:6])
@pytest.mark.parametrize(
    "form",
    [
        lambda v: v,
        lambda v: [v],
        lambda v: [0.5, v],
        lambda v: [v, 0.5],
        lambda v: {"groups": [v]},
        lambda v: {"a": v},
        lambda v: [{"filter": "mlp", "value": v}],
    ],
)
def test_numbers_that_are_not_finite_are_refused_in_every_form(form, bad):
    for index in range(3):
        with pytest.raises(RecipeError, match="weight"):
            pick(FREE, form(bad), layer(index, count=3), "a")


def test_a_gradient_is_exact_at_its_points_and_does_not_overflow_between_them():
    # 1.0 + (0.3 - 1.0) would be 0.30000000000000004.
    assert [pick(WEIGHT, [1.0, 0.3], layer(i, count=2)) for i in range(2)] == [1.0, 0.3]
    assert pick(FREE, [1.7e308, -1.7e308], layer(1, count=3)) == 0.0


@pytest.mark.parametrize(
    ("form", "limit"),
    [
        (lambda n: [0.5] * n, MAX_POINTS),
        (lambda n: {"groups": [0.5] * n}, MAX_POINTS),
        (lambda n: {"a": [0.5] * n}, MAX_POINTS),
        (lambda n: [{"filter": "x", "value": 1.0}] * n, MAX_POINTS),
        (lambda n: {f"s{i}": 0.5 for i in range(n)}, MAX_POINTS),
        (lambda n: nested(n), MAX_NESTING),
    ],
)
def test_a_form_is_bounded_in_length_and_depth(form, limit):
    check_form(form(limit), "weight")
    with pytest.raises(RecipeError, match="weight"):
        check_form(form(limit + 1), "weight")


def nested(levels):
    value = 0.5
    for _ in range(levels):
        value = [{"value": value}]
    return value


def test_a_form_nested_ten_thousand_times_is_refused_without_following_it():
    with pytest.raises(RecipeError, match="nested"):
        check_form(nested(10_000), "weight")


@pytest.mark.parametrize(
    ("share", "embed", "layers", "head"),
    [
        (0.0, 0, [0, 0, 0, 0], 0),
        (0.1, 1, [0, 0, 0, 0], 0),
        (0.25, 1, [1, 0, 0, 0], 0),
        (0.6, 1, [1, 1, 0, 0], 0),
        (0.63, 1, [1, 1, 1, 0], 0),
        (0.99, 1, [1, 1, 1, 1], 0),
        (1.0, 1, [1, 1, 1, 1], 1),
    ],
)
def test_a_share_of_the_stack_reaches_from_the_embedding_to_the_nearest_layer(share, embed, layers, head):
    assert reached(share, Place(tensor="embed", part="embed")) == embed
    assert [reached(share, layer(index, 4)) for index in range(4)] == layers
    assert reached(share, Place(tensor="norm", part="head")) == head


FILTERS = [{"filter": "mlp", "value": 0.5}, {"value": 1.0}]


@pytest.mark.parametrize("value", [FILTERS, {"a": FILTERS, "b": 1.0}, [{"value": [0.1, 0.2]}], {"a": {"b": FILTERS}}])
def test_filters_are_seen_wherever_they_stand(value):
    assert has_filters(value)


@pytest.mark.parametrize("value", [None, 1.0, "sum", [0.1, 0.2], {"a": [0.1, 0.2], "b": 1.0}, {"groups": [0.1, 0.2]}])
def test_values_that_go_by_place_alone_have_none(value):
    assert not has_filters(value)
