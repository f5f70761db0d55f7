import pytest
from studies import merges, space

from search.plan import reference, seeds


def brief(values) -> tuple:
    """Method and weights (or t), rounded."""
    numbers = [v for k, v in values.items() if isinstance(v, float) and "density" not in k]
    return (values.get("merge.method"), *(round(v, 3) for v in numbers))


def test_the_reference_comes_first_then_full_task_vectors_and_then_every_other_uniform_merge():
    third = (0.333,) * 3
    assert [brief(values) for values in seeds(space())] == [
        ("linear", *third),
        ("task_arithmetic", 1.0, 1.0, 1.0),
        ("dare_ties", 1.0, 1.0, 1.0),
        ("slerp", 0.5),
        ("task_arithmetic", *third),
        ("ties", *third),
        ("dare_ties", *third),
    ]


@pytest.mark.parametrize(
    "compiled",
    [
        space(),
        merges("task_arithmetic"),
        merges("linear", "slerp", sources=["a", "b"]),
        merges("ties", "task_arithmetic", layer_groups=4, params={"normalize": False}),
    ],
)
def test_every_start_lies_in_the_space(compiled):
    found = seeds(compiled)
    assert found
    for values in found:
        compiled.check(values)
        assert compiled.read(compiled.fill(values)) == values


def test_full_vectors_are_left_out_where_weights_are_normalised_bounded_or_fixed():
    weight = {"params": {"weight": {"low": 0.0, "high": 0.9}}}
    assert [brief(v) for v in seeds(merges("task_arithmetic", **weight))] == [(None, 0.333, 0.333, 0.333)]
    normalised = merges("task_arithmetic", params={"normalize": True})
    assert [brief(v) for v in seeds(normalised)] == [(None, 0.333, 0.333, 0.333)]
    fixed = merges("task_arithmetic", "linear", params={"weight": 0.7})
    assert [brief(v) for v in seeds(fixed)] == [("task_arithmetic",), ("linear",)]


def test_not_normalising_ties_has_full_vectors_too():
    assert brief(seeds(merges("ties", params={"normalize": False}))[1]) == (None, 1.0, 1.0, 1.0)


def test_with_a_single_source_uniform_and_full_are_one_start():
    assert len(seeds(merges("task_arithmetic", sources=["a"]))) == 1


def test_layer_groups_get_equal_starts():
    uniform, full = seeds(merges("task_arithmetic", layer_groups=2))
    assert set(uniform) == set(full) and set(uniform.values()) == {1 / 3}
    assert full == {f"merge.task_arithmetic.weight.{s}.g{g}": 1.0 for s in "abc" for g in range(2)}


def test_a_space_without_merges_has_no_known_starts():
    assert seeds(space({"family": "layout", "presets": ["dus"], "sources": ["a"]})) == []


def test_the_reference_is_the_first_uniform_merge_and_a_space_without_merges_has_none():
    assert space().read(reference(space())) == seeds(space())[0]
    assert reference(space({"family": "layout", "presets": ["dus"], "sources": ["a"]})) is None


def test_a_limit_keeps_the_best_bets():
    assert seeds(space(), limit=2) == seeds(space())[:2]
