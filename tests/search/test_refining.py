import pytest

from core.jobs import Budget
from core.refinement import Refine
from core.space import SearchSpace
from core.space_spec import SpaceSpec
from search.refining import SPREAD, Candidate, around, starts, structure_of

MODELS = ("base", "a", "b", "c")


def space(*methods, layout=False):
    families = [{"family": "merge", "methods": methods, "base": "base"}]
    if layout:
        families.append({"family": "layout", "presets": ["dus"], "sources": ["a"]})
    return SearchSpace(SpaceSpec.model_validate({"families": families}), MODELS, depth=4)


SPACE = space("linear", "task_arithmetic", "slerp", layout=True)


def merges(scores):
    """One candidate of every method in the order of the space, with these scores."""
    uniform = [SPACE.read(recipe) for recipe in SPACE.uniform()]
    return [
        Candidate(f"t{place}", values, score) for place, (values, score) in enumerate(zip(uniform, scores, strict=True))
    ]


def begin(candidates, begun=(), budget=None, **rules):
    return starts(SPACE, candidates, set(begun), Refine(**rules), budget or Budget(trials=100))


def test_the_best_of_each_structure_is_started_from_the_best_structure_first():
    linear, arithmetic, slerp = merges([0.5, 0.7, 0.6])
    better = Candidate("t9", {**linear.values, "merge.linear.weight.a": 0.9}, 0.8)
    found = begin([linear, arithmetic, slerp, better], granularity="holes", structures=2)
    assert [start.candidate.trial for start in found] == ["t9", "t1"]


def test_the_best_structure_is_refined_by_tensor_and_the_others_by_hole():
    found = begin(merges([0.5, 0.7, 0.6]), granularity="both", structures=2)
    assert [(start.candidate.trial, start.granularity) for start in found] == [("t1", "tensor"), ("t2", "holes")]


@pytest.mark.parametrize(("leads", "again"), [(None, []), (True, []), (False, [("t1", "holes")])])
def test_where_values_by_tensor_come_to_nothing_the_same_structure_is_refined_by_hole(leads, again):
    candidates = merges([0.5, 0.7, 0.6])
    begun = [(start.structure, start.granularity) for start in begin(candidates, structures=2)]
    found = starts(SPACE, candidates, begun, Refine(structures=2), Budget(trials=100), fine_leads=leads)
    assert [(start.candidate.trial, start.granularity) for start in found] == again


def test_only_one_structure_of_a_study_is_refined_by_tensor():
    (first, *_) = begin(merges([0.5, 0.7, 0.6]), structures=2)
    found = begin(merges([0.9, 0.7, 0.6]), [(first.structure, first.granularity)], structures=2)
    assert [(start.candidate.trial, start.granularity) for start in found] == [("t0", "holes")]


def test_whoever_was_refined_is_not_refined_again():
    candidates = merges([0.5, 0.7, 0.6])
    first = begin(candidates, granularity="holes", structures=2)
    begun = [(start.structure, start.granularity) for start in first]
    assert begin(candidates, begun, granularity="holes", structures=2) == []


def test_layouts_have_nothing_smooth():
    assert begin([Candidate("t0", {"family": "layout", "layout.dus.m": 1}, 0.9)]) == []


def test_a_structure_is_its_choices_and_not_its_numbers():
    (linear, *_) = merges([0.5, 0.7, 0.6])
    moved = {**linear.values, "merge.linear.weight.a": 0.1}
    assert structure_of(SPACE, moved) == structure_of(SPACE, linear.values)
    assert structure_of(SPACE, linear.values) != structure_of(SPACE, merges([0, 0, 0])[1].values)


@pytest.mark.parametrize(("items", "each", "count"), [(20_000, 1500, 3), (6000, 600, 3), (2000, 300, 2), (900, 0, 0)])
def test_all_refinements_together_stay_within_their_share_of_the_items(items, each, count):
    found = begin(merges([0.5, 0.7, 0.6]), budget=Budget(item_evaluations=items), granularity="holes")
    assert [start.max_items for start in found] == [each] * count
    assert sum(start.max_items for start in found) <= 0.3 * items


def test_a_budget_of_trials_pays_for_one_refinement_in_eight():
    assert len(begin(merges([0.5, 0.7, 0.6]), budget=Budget(trials=16))) == 2
    assert len(begin(merges([0.5, 0.7, 0.6]), budget=Budget(trials=4))) == 1


def test_polish_stays_near_and_inside_and_leaves_choices_alone():
    values = {**merges([0, 0, 0])[1].values, "merge.task_arithmetic.weight.a": 1.5}
    near = around(SPACE, values, 40, seed=3)
    assert near == around(SPACE, values, 40, seed=3)
    assert len({str(each) for each in near}) == 40
    firsts = [each["merge.task_arithmetic.weight.b"] - values["merge.task_arithmetic.weight.b"] for each in near]
    assert 0.5 * SPREAD * 1.5 < (sum(v * v for v in firsts) / 40) ** 0.5 < 1.5 * SPREAD * 1.5
    for each in near:
        SPACE.check(each)
        assert each["merge.method"] == "task_arithmetic"
