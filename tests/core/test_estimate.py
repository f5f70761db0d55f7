import math

import pytest

from core.costs import Pace, Range, TaskSize, task_size
from core.devices import speeds_of
from core.estimate import estimate, of_parents, reaching
from core.jobs import SearchJob
from core.objective import TaskSpec
from core.outcomes import bitmap
from core.tasks import TaskContent
from tests.core.families import model


def job(**changes):
    return SearchJob.model_validate(
        {
            "models": [{"name": "a", "ref": "a"}, {"name": "b", "ref": "b"}],
            "space": {"families": [{"family": "merge", "methods": ["linear"]}]},
            "objective": {"tasks": [{"task": "one"}, {"task": "two"}]},
            "budget": {"trials": 12},
            "racing": {"rungs": [10, 30], "finalists": 2},
            "refine": {"enabled": False},
            **changes,
        }
    )


def size(name, items):
    return TaskSize(task=name, search_items=items, heldout_items=50, tokens=Range(10, 20, 40), known=True)


SIZES = [size("one", 20), size("two", 100)]
HEADERS = {name: model(name).header for name in "ab"}
WEIGHTS = HEADERS["a"].parameters


def pace(seconds, *, device="cpu (x)", build=0.0):
    return Pace(device=device, items=100, seconds=seconds, build_seconds=build, parameters=WEIGHTS, tokens=20.0)


def test_one_in_eta_goes_on_once_eta_were_seen_by_hand():
    # Two parents; the first candidate is the third that is seen, so one of three goes on: 1/3. The second meets
    # three others (1 of 4), the third four (1 of 5), the fourth five (2 of 6).
    assert reaching(4, 2, rivals=2, eta=3) == (4.0, pytest.approx(1 / 3 + 1 / 4 + 1 / 5 + 2 / 6))
    # Without rivals the first two go on whatever they are.
    assert reaching(2, 2, rivals=0, eta=3)[1] == 2.0
    assert reaching(300, 3, rivals=0, eta=3)[2] == pytest.approx(300 / 9, rel=0.12)


def test_the_cheapest_course_scores_what_the_race_asks_for():
    found = estimate(job(), HEADERS, SIZES)
    reached = reaching(12, 3, 2, 3)
    # 10, 30 and 100 items per task; the first task has 20 only.
    steps = (20, 50, 120)
    # One parent in full, the other told apart on the first rung.
    by_hand = 120 + 20 + reached[0] * 20 + reached[1] * 30 + reached[2] * 70
    assert [rung.items for rung in found.rungs] == list(steps)
    assert found.item_evaluations.low == pytest.approx(by_hand)
    assert found.item_evaluations.low < found.item_evaluations.likely < found.item_evaluations.high
    assert found.item_evaluations.high < (2 + 12) * 120
    assert found.builds.low == 14 and found.candidates == Range(12, 12, 12)
    assert (found.ends_by, found.heldout_items) == ("trials", (2 + 2) * 100)


def test_parents_are_scored_in_full_as_far_as_nothing_tells_them_apart():
    steps = (20, 50, 120)
    assert [of_parents(4, steps, share) for share in (1.0, 1.3, 2.0)] == [120 + 3 * 20, 2 * 120 + 2 * 50, 4 * 120]
    assert [of_parents(1, steps, share) for share in (1.0, 1.3, 2.0)] == [120] * 3
    assert [of_parents(3, (120,), share) for share in (1.0, 1.3, 2.0)] == [360] * 3


@pytest.mark.parametrize(
    ("budget", "ends_by"),
    [
        ({"item_evaluations": 900}, "item_evaluations"),
        ({"trials": 1000, "seconds": 400}, "seconds"),
        ({"trials": 1000, "device_seconds": 300}, "device_seconds"),
        ({"trials": 3, "item_evaluations": 10**6}, "trials"),
    ],
)
def test_the_limit_that_is_reached_first_ends_it(budget, ends_by):
    found = estimate(job(budget=budget), HEADERS, SIZES, device="cpu (x)", paces=[pace(100.0)])
    assert found.ends_by == ends_by
    assert found.candidates.likely < 1000
    if ends_by == "item_evaluations":
        assert 900 <= found.item_evaluations.likely < 900 + 120


def test_what_is_stored_already_costs_nothing_but_in_the_dear_course():
    fresh, known = estimate(job(), HEADERS, SIZES), estimate(job(), HEADERS, SIZES, reused=200)
    assert known.item_evaluations.low == pytest.approx(fresh.item_evaluations.low - 200)
    assert known.item_evaluations.likely == pytest.approx(fresh.item_evaluations.likely - 200)
    assert known.item_evaluations.high == fresh.item_evaluations.high
    assert (fresh.reused_items, known.reused_items) == (0, 200)
    assert estimate(job(), HEADERS, SIZES, reused=10**6).item_evaluations.low == 0


def test_the_first_rung_is_raised_to_a_third_of_a_build_where_the_job_names_none():
    # An item takes a second and a build 300: the first rung is to hold 100 items over tasks of 20 and 400.
    sizes, racing = [size("one", 20), size("two", 400)], {"finalists": 2}
    paces = [pace(100.0, build=300.0)]
    found = estimate(job(racing=racing), HEADERS, sizes, device="cpu (x)", paces=paces)
    assert [rung.items_per_task for rung in found.rungs] == [80, 200, 400]
    assert next(one.value for one in found.inputs if one.name == "build_cost") == 300.0
    named = estimate(job(racing={"rungs": [50, 200]}), HEADERS, sizes, device="cpu (x)", paces=paces)
    assert [rung.items_per_task for rung in named.rungs] == [50, 200, 400]


def test_a_strategy_that_does_not_race_scores_every_candidate_in_full():
    found = estimate(job(strategy={"name": "mergekit-evolve"}), HEADERS, SIZES)
    assert [rung.items_per_task for rung in found.rungs] == [100]
    assert found.item_evaluations == Range(14 * 120, 14 * 120, 14 * 120)


def test_gradient_refinement_is_reckoned_by_the_rules_of_the_job():
    plain = estimate(job(), HEADERS, SIZES)
    found = estimate(job(refine={}, budget={"trials": 48}), HEADERS, SIZES)
    # One structure: a walk of 1,500 items, and in the dear course a second one.
    assert found.refined_items == Range(450, 1350, 3000)
    assert plain.refined_items == Range(0, 0, 0)
    same = estimate(job(budget={"trials": 48}), HEADERS, SIZES)
    assert found.item_evaluations.likely == pytest.approx(same.item_evaluations.likely + 1350)
    assert found.builds.low == same.builds.low + 1
    # A budget of items lets refinements have three tenths of it.
    short = estimate(job(refine={}, budget={"item_evaluations": 3000}), HEADERS, SIZES)
    assert short.refined_items == Range(0.3 * 450, 0.9 * 450, 900)
    for changes in ({"budget": {"trials": 11}}, {"strategy": {"name": "random"}}):
        assert estimate(job(refine={}, **changes), HEADERS, SIZES).refined_items.high == 0
    fixed = {"families": [{"family": "merge", "methods": ["linear"], "params": {"weight": 0.5}}]}
    assert estimate(job(refine={}, space=fixed), HEADERS, SIZES).refined_items.high == 0


def test_what_was_measured_on_the_device_gives_the_time():
    # 100 items took 100 s at these weights and tokens: one second an item; a build takes two.
    paces = [pace(100.0, build=2.0), pace(9.0, device="other")]
    found = estimate(job(), HEADERS, SIZES, device="cpu (x)", paces=paces)
    assert found.observed == 1
    assert found.device_seconds.low == pytest.approx(found.item_evaluations.low + 2 * found.builds.low)
    twice = estimate(job(parallel=2), HEADERS, SIZES, device="cpu (x)", paces=paces)
    assert twice.seconds.likely < 0.6 * found.seconds.likely
    assert twice.device_seconds == found.device_seconds
    one = estimate(job(parallel=2), HEADERS, SIZES, device="cpu (x)", paces=paces, workers=1)
    assert (one.workers, one.seconds) == (1, found.seconds)


def test_an_item_of_a_larger_model_takes_longer_in_proportion():
    small, large = Pace(**{**dict(pace(100.0)), "parameters": WEIGHTS // 2}), pace(100.0)
    found = [estimate(job(), HEADERS, SIZES, device="cpu (x)", paces=[one]) for one in (small, large)]
    assert found[0].device_seconds.likely == pytest.approx(2 * found[1].device_seconds.likely, rel=0.01)


def test_the_middle_half_of_what_was_measured_is_the_range():
    paces = [pace(seconds) for seconds in (10.0, 20.0, 30.0, 40.0, 1000.0)]
    found = estimate(job(), HEADERS, SIZES, device="cpu (x)", paces=paces)
    per_item = next(one for one in found.inputs if one.name == "seconds_per_item")
    assert per_item.value == pytest.approx(0.3) and "5 steps" in per_item.source


def test_without_measurements_a_table_gives_a_wide_range_that_is_explained():
    found = estimate(job(), HEADERS, SIZES, device="NVIDIA H200")
    assert found.observed == 0 and found.seconds.high > 2 * found.seconds.low
    assert any("nothing was measured on 'NVIDIA H200'" in one.source for one in found.inputs)
    names = {one.name for one in found.inputs}
    assert {"parameters.a", "search_items.one", "tokens.two", "eta", "arithmetic", "bandwidth", "start"} <= names


def test_a_parent_whose_size_nobody_knows_leaves_items_but_no_times():
    found = estimate(job(), {"a": HEADERS["a"]}, SIZES)
    assert (found.seconds, found.device_seconds, found.memory) == (None, None, None)
    assert found.item_evaluations.likely > 0
    assert any("register those" in said for said in found.assumptions)


def test_a_worker_holds_the_parents_a_candidate_and_the_logits():
    gpu = estimate(job(), HEADERS, SIZES, device="cuda", reuse_bytes=1000).memory
    stored = sum(tensor.elements * 2 for tensor in HEADERS["a"].tensors)
    assert gpu.parents == sum(
        sum(t.elements * {"BF16": 2, "F32": 4}[t.dtype] for t in header.tensors) for header in HEADERS.values()
    )
    assert (gpu.candidate, gpu.reuse) == (stored, 1000)
    assert gpu.total == gpu.parents + gpu.candidate + gpu.reuse + gpu.working
    cpu = estimate(job(), HEADERS, SIZES, device="cpu").memory
    assert cpu.candidate == 3 * gpu.candidate


def test_a_worker_that_trains_the_search_s_own_generator_holds_its_values_codes_and_networks_as_well():
    training = {"width": 8, "blocks": 1}
    own = {
        "family": "generation",
        "generator": {"train_after": 4, "top": 2, "training": training},
        "selectors": ["norms", "block:-1"],
        "base": "a",
    }
    merges = {"family": "merge", "methods": ["linear"]}
    found = estimate(job(space={"families": [merges, own]}), HEADERS, SIZES, device="cuda").memory
    plain = estimate(job(), HEADERS, SIZES, device="cuda").memory
    # Five norms of 8 and two matrices of 16 and 8 rows are seven chunks of 16, of the base and two candidates: values,
    # means and deviations in four bytes each; one byte more for what is shown.
    data = 7 * (3 * 4 * (16 + 2 * 16) + 16)
    networks = 20 * (5 * 8 * 1024 + (4 + 8) * 8**2)
    assert (found.training, plain.training) == (data + networks, 0)
    assert found.total - plain.total == data + networks
    assert "training" not in plain.model_dump(mode="json")


def test_a_task_that_was_read_costs_what_it_holds_and_others_what_was_published():
    content = TaskContent(
        name="one",
        version="1",
        content_digest="c" * 64,
        documents=30,
        search=bitmap(range(10), 30).hex(),
        metrics=("acc",),
        has_fewshot=True,
        mean_characters=80.0,
        mean_choices=3.0,
    )
    read = task_size(TaskSpec(task="one"), content)
    assert (read.search_items, read.heldout_items, read.known) == (10, 20, True)
    assert read.tokens.likely == pytest.approx(80 / 4.0 * 1.4)
    assert read.tokens.high == pytest.approx(80 / 3.0 * 3)
    shots = task_size(TaskSpec(task="one", num_fewshot=4), content)
    assert shots.tokens.likely == pytest.approx(5 * read.tokens.likely)
    usual = task_size(TaskSpec(task="arc_challenge"), None)
    assert (usual.search_items + usual.heldout_items, usual.known) == (1172, False)


def test_the_table_knows_devices_by_a_part_of_their_name_and_any_cpu():
    assert speeds_of("NVIDIA H200").flops[1] > speeds_of("Tesla T4").flops[1] > speeds_of("cpu (x86_64)").flops[1]
    unknown = speeds_of("Nonesuch 9000")
    assert unknown.flops[0] == pytest.approx(0.08 * 6.5e13) and unknown.flops[2] == pytest.approx(0.55 * 2.2e15)
    assert all(math.isfinite(value) for value in (*unknown.flops, *unknown.bandwidth, *unknown.overhead))
