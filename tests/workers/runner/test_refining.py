"""The questions of a refinement, over a whole tiny Llama."""

import numpy as np
import pytest
import torch

from core.errors import CancelledError
from core.noun import canonical_json
from core.objective import Objective
from core.recipe import resolve
from core.smooth import numbers
from core.space import SearchSpace
from core.space_spec import SpaceSpec
from core.tasks import TaskContent, order
from evaluation.answers import AnswerRule
from evaluation.gradient import smoothed
from evaluation.prepare import Document, Prepared, PreparedTask
from evaluation.scorer import Scorer
from evaluation.trees import TokenRequest, grow
from merging.compiled import Compiler
from merging.resident import Resident
from tests.merging.conftest import Family, write_family
from workers.runner.descent import Bounds, Pace, walk
from workers.runner.refining import Ground, Notes, complete, divide, rounded

torch.set_num_threads(1)
OBJECTIVE = Objective.model_validate(
    {"tasks": [{"task": "x", "metric": "acc", "weight": 3.0}, {"task": "y", "metric": "acc"}]}
)


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    folder = tmp_path_factory.mktemp("family")
    write_family(folder, torch.float32)
    return Family(folder)


def task(name, seed, spec):
    """Forty documents of three choices, the first thirty on the search side."""
    draw = np.random.default_rng(seed)
    documents = []
    for _ in range(40):
        context = draw.integers(3, 64, 5)
        choices = [draw.integers(3, 64, 2) for _ in range(3)]
        requests = [TokenRequest(np.array([*context, each[0]], np.int32), each.astype(np.int32)) for each in choices]
        documents.append(Document(grow(requests), AnswerRule((int(draw.integers(3)),), np.ones(3))))
    side = bytes([255, 255, 255, 63, 0]).hex()
    content = TaskContent(
        name=name, version="1", content_digest=name, documents=40, search=side, metrics=("acc",), has_fewshot=False
    )
    return PreparedTask(content, spec, tuple(documents), "digest", False, 64, 63)


@pytest.fixture(scope="module")
def scorer():
    tasks = {spec.task: task(spec.task, place, spec) for place, spec in enumerate(OBJECTIVE.tasks)}
    return Scorer(Prepared(tasks), device=torch.device("cpu"), dtype=torch.float64)


def ground(family, scorer, method, **options):
    merge = {"family": "merge", "methods": [method], "base": "base", "layer_groups": 2}
    if method == "slerp":
        merge["sources"] = ["a", "b"]
    space = SearchSpace(
        SpaceSpec.model_validate({"families": [merge]}), tuple(family.models), depth=4, save_dtype="float32"
    )
    resident = Resident(family.parents(), forward_dtype=torch.float64, compiler=Compiler("never"))
    items = divide(OBJECTIVE, scorer, 7, kept_share=0.2, kept_most=4)
    return Ground(space, space.read(space.uniform()[0]), family.models, resident, scorer, items, batch=8, **options)


def test_kept_back_items_are_the_first_of_the_study_and_the_rest_is_never_among_them(scorer):
    first, second = divide(OBJECTIVE, scorer, 7, kept_share=0.2, kept_most=4)
    ordered = order(7, "x", range(30))
    assert first.kept == ordered[:4]
    assert sorted(first.rest) == sorted(ordered[4:])
    assert (first.share, second.share) == (0.75, 0.25)
    wider, _ = divide(OBJECTIVE, scorer, 7, kept_share=0.2, kept_most=100)
    assert len(wider.kept) == 6


def test_minibatches_go_through_all_of_the_rest_before_an_item_comes_again(scorer):
    first, _ = divide(OBJECTIVE, scorer, 7, kept_share=0.2, kept_most=4)
    seen = [number for step in range(13) for number in first.batch(step, 2)]
    assert sorted(seen) == sorted(first.rest)
    assert first.batch(13, 2) == first.batch(0, 2)


def test_refinements_of_one_study_take_the_rest_in_orders_of_their_own(scorer):
    one, other = (divide(OBJECTIVE, scorer, 7, kept_share=0.2, kept_most=4, stream=name)[0] for name in "ab")
    assert one.kept == other.kept
    assert one.rest != other.rest


@pytest.mark.parametrize("fine", [False, True])
@pytest.mark.parametrize("method", ["task_arithmetic", "slerp", "linear"])
def test_slopes_are_those_of_the_loss(family, scorer, method, fine):
    """Of three coefficients, from the loss on both sides of each, in float64 over weights rounded to float32."""
    here = ground(family, scorer, method, fine=fine)
    at = tuple(bound.start for bound in here.bounds)
    answer = here.loss(0, at)
    steepest = sorted(range(len(at)), key=lambda index: -abs(answer.slopes[index]))[:3]
    for index in steepest:
        step = 2e-3
        moved = [tuple(v + side * step * (i == index) for i, v in enumerate(at)) for side in (1, -1)]
        upper, lower = (here.loss(0, point).value for point in moved)
        assert answer.slopes[index] == pytest.approx((upper - lower) / (2 * step), rel=5e-3)


def test_a_step_costs_three_items_for_each_of_its_minibatch_and_a_look_one_for_each_kept_back(family, scorer):
    here = ground(family, scorer, "task_arithmetic")
    at = tuple(bound.start for bound in here.bounds)
    assert here.loss(0, at).items == 3 * 8
    assert here.score(at).items == 2 * 4


def test_the_score_is_the_weighted_smoothed_accuracy_of_the_candidate_on_kept_back_items(family, scorer):
    here = ground(family, scorer, "task_arithmetic")
    at = tuple(bound.start for bound in here.bounds)
    model = (
        Resident(family.parents(), forward_dtype=torch.float64).build(resolve(here.recipe_at(at), family.models)).model
    )
    items = divide(OBJECTIVE, scorer, 7, kept_share=0.2, kept_most=4)
    expected = sum(part.share * smoothed(scorer.score(model, part.task, part.kept)) for part in items)
    assert here.score(at).value == pytest.approx(expected, abs=1e-9)


def test_a_walk_lowers_the_loss_of_items_it_learns_from(family, scorer):
    here = ground(family, scorer, "task_arithmetic")
    found = walk(here.bounds, Pace(max_items=600, patience=99), loss=here.loss, score=here.score)
    before, after = (
        sum(here.loss(step, point).value for step in range(6)) for point in (found.iterates[0], found.looks[-1].point)
    )
    assert after < before - 0.05


def test_points_by_tensor_are_recipes_with_a_value_for_each(family, scorer):
    here = ground(family, scorer, "task_arithmetic", fine=True)
    point = tuple(0.001 * (place + 1) for place in range(len(here.axes)))
    found = dict(numbers(resolve(here.recipe_at(point), family.models)))
    assert [found[axis.coordinates[0]] for axis in here.axes] == list(point)
    assert len(canonical_json(here.recipe_at(point).model_dump(mode="json"))) < 20_000


def test_nothing_more_is_read_once_it_is_cancelled(family, scorer):
    here = ground(family, scorer, "task_arithmetic", cancelled=lambda: True)
    at = tuple(bound.start for bound in here.bounds)
    with pytest.raises(CancelledError):
        here.loss(0, at)
    with pytest.raises(CancelledError):
        here.score(at)


def test_rounding_stays_inside_the_interval():
    assert rounded((0.12345678, 0.99999999), [Bounds(0, 1, 0), Bounds(0, 0.9999999, 0)]) == (0.123457, 0.9999999)


def test_a_look_at_what_was_scored_costs_nothing_and_the_walk_goes_the_same_way(family, scorer):
    notes = Notes()
    here = ground(family, scorer, "task_arithmetic", fine=True, memory=notes)
    at = tuple(bound.start for bound in here.bounds)
    # The candidate that the space makes of its values is the one at the start, by tensor as well.
    space_ground = ground(family, scorer, "task_arithmetic")
    start = resolve(space_ground.recipe_at(tuple(bound.start for bound in space_ground.bounds)), family.models)
    wanted = {part.task: part.kept for part in divide(OBJECTIVE, scorer, 7, kept_share=0.2, kept_most=4)}
    assert complete(notes, here._resident, scorer, start, wanted) == 8
    assert (here.score(at).items, here.score(at).reused) == (8, 8)
    pace = Pace(max_items=150, check_every=2, patience=99)
    informed = walk(here.bounds, pace, loss=here.loss, score=here.score)
    plain = ground(family, scorer, "task_arithmetic", fine=True)
    alone = walk(plain.bounds, pace, loss=plain.loss, score=plain.score)
    assert informed.iterates == alone.iterates
    assert informed.items == alone.items - 8


def test_what_a_look_found_holds_for_the_candidate_that_leaves_the_walk(family, scorer):
    notes = Notes()
    here = ground(family, scorer, "task_arithmetic", memory=notes)
    found = walk(here.bounds, Pace(max_items=150, check_every=2, patience=99), loss=here.loss, score=here.score)
    assert found.looks[-1].step > 0
    leaving = resolve(here.recipe_at(rounded(found.looks[-1].point, here.bounds)), family.models)
    wanted = {part.task: part.kept for part in divide(OBJECTIVE, scorer, 7, kept_share=0.2, kept_most=4)}
    assert complete(notes, here._resident, scorer, leaving, wanted) == 0
