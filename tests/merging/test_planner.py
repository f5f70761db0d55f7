from __future__ import annotations

import pytest

from core.recipe import Recipe, Source
from core.recipe.short import Merge
from merging import planner as module
from merging.plan import plan
from merging.planner import KEPT, Planner, structure_of


def recipes(family):
    """Two candidates of every structure, which differ in values alone."""
    layers = {"sources": [{"source": "a", "layers": [0, 1, 2, 1]}]}
    for value in (0.25, 0.75):
        yield family.merge("linear", weight={"a": [value, 0.4], "b": 0.5, "c": 1.0})
        yield family.merge("slerp", ("a", "b"), t=value)
        yield family.merge("ties", density=value, weight=[{"filter": "mlp", "value": value}, {"value": 1.0}])
        yield family.merge("dare_ties", density=value, **{"lambda": value})
        yield family.merge("dare_ties", density=value, save_dtype="bfloat16")
        yield family.merge("task_arithmetic", scale=value) if value < 0.5 else family.merge("task_arithmetic")
        yield family.recipe(slices=(layers,), save_dtype="float32")


def planned_by(planner, recipe):
    return planner.plan(recipe, None, structure_of(recipe))


def test_plans_are_those_of_a_candidate_planned_by_itself(family):
    headers = family.parents().headers
    planner = Planner(headers)
    for recipe in recipes(family):
        assert planned_by(planner, recipe) == plan(recipe, headers)


def test_values_alone_are_not_planned_anew(family, monkeypatch):
    planned = []
    monkeypatch.setattr(module, "plan", lambda recipe, *rest: (planned.append(recipe), plan(recipe, *rest))[1])
    planner = Planner(family.parents().headers)
    for weight in (0.1, 0.2, 0.3):
        planned_by(planner, family.merge("linear", weight=weight))
    assert len(planned) == 1
    for seed in (0, 1):
        planned_by(planner, family.merge("dare_ties", density=0.5, seed=seed))
    assert len(planned) == 3


def test_what_keeps_its_values_keeps_its_plan(family):
    def candidate(value):
        own = [{"filter": "mlp", "value": value}, {"value": 1.0}]
        return family.merge("linear", weight={"a": own, "b": 0.5, "c": 1.0})

    headers = family.parents().headers
    planner = Planner(headers)
    first, second, again = (planned_by(planner, candidate(value)) for value in (0.2, 0.3, 0.2))
    kept = {each.name for each, before in zip(second, first, strict=True) if each is before}
    assert kept == {each.name for each in second if "mlp" not in each.name}
    assert again == first == plan(candidate(0.2), headers)
    assert second == plan(candidate(0.3), headers)


def test_candidates_in_a_row_share_their_structure(family):
    planner = Planner(family.parents().headers)
    one, same = (planner.structure(family.merge("linear", weight=weight)) for weight in (0.1, 0.2))
    other, again = (planner.structure(family.merge("slerp", ("a", "b"), t=t)) for t in (0.1, 0.2))
    assert one is same
    assert other is again
    assert one != other
    assert planner.structure(family.merge("ties", density=0.5, trim_scope="model")) is None
    assert planner.structure(family.merge("linear", weight=0.3)) == one


def test_contents_are_equal_where_keys_are(family):
    planner = Planner(family.parents().headers)
    plans = [each for recipe in recipes(family) for each in planned_by(planner, recipe)]
    keys: dict[str, set[object]] = {}
    for each in plans:
        keys.setdefault(each.key, set()).add(each.content)
    assert all(len(contents) == 1 for contents in keys.values())
    assert len({each.content for each in plans}) == len(keys)


def test_a_zero_and_its_negative_are_different_contents(family):
    planner = Planner(family.parents().headers)
    first, second = (
        planned_by(planner, family.merge("linear", weight={"a": w, "b": 1.0, "c": 1.0}))[0] for w in (0.0, -0.0)
    )
    assert first == second
    assert first.content != second.content
    slow = [plan(family.merge("linear", weight={"a": w, "b": 1.0, "c": 1.0}), family.parents().headers)[0].content
            for w in (0.0, -0.0)]  # fmt: skip
    assert slow[0] != slow[1]


@pytest.mark.parametrize("case", ["nested", "whole model"])
def test_what_depends_on_more_than_values_is_planned_every_time(family, case):
    if case == "nested":
        inner = Recipe(sources=(Source(name="a", model="a"), Source(name="b", model="b")), merge=Merge(method="linear"))
        merge = {"method": "linear", "sources": ["mix", "c"]}
        recipe = family.recipe(sources=(Source(name="mix", recipe=inner), "c"), merge=merge, save_dtype="float32")
    else:
        recipe = family.merge("ties", density=0.5, trim_scope="model")
    assert structure_of(recipe) is None
    headers = family.parents().headers
    assert planned_by(Planner(headers), recipe) == plan(recipe, headers)


def test_only_so_many_structures_are_remembered(family):
    planner = Planner(family.parents().headers)
    for seed in range(KEPT + 3):
        planned_by(planner, family.merge("dare_ties", density=0.5, seed=seed))
    assert len(planner._known) == KEPT
