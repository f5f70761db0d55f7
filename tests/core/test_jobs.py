import pytest
from pydantic import ValidationError

from core.errors import BudgetError, RecipeError, SpaceError, UnknownTaskError
from core.jobs import Budget, ModelRef, Opening, SearchJob, check_job, read_job

MERGE = {"family": "merge", "methods": ["linear"]}


def job(**merge):
    return SearchJob.model_validate(
        {
            "models": [{"name": name, "ref": f"local:{name}"} for name in ("base", "a", "b")],
            "space": {"families": [{"family": "merge", "methods": ["linear"], **merge}]},
            "objective": {"tasks": [{"task": "arc_easy"}]},
            "budget": {"trials": 5},
        }
    )


@pytest.mark.parametrize(
    "merge",
    [
        {"params": {"weight": 0}},
        {"params": {"weight": 0.0}, "methods": ["slerp", "linear"]},
        {"params": {"weight": {"low": 0.0, "high": 0.0}}},
        {"params": {"weight": 0.0}, "methods": ["ties", "linear"], "base": "base"},
    ],
)
def test_weights_fixed_to_nothing_are_refused_before_any_header_is_known(merge):
    with pytest.raises(RecipeError, match="must not sum to 0 under normalize") as found:
        check_job(job(**merge))
    assert found.value.where == "weight"


@pytest.mark.parametrize(
    "merge",
    [
        {},
        {"params": {"weight": 0.5}},
        {"params": {"weight": 0.0, "normalize": False}},
        {"params": {"weight": 0.0}, "methods": ["task_arithmetic"], "base": "base"},
        {"params": {"weight": {"low": 0.0, "high": 1.0}}},
    ],
)
def test_weights_that_may_be_something_pass(merge):
    check_job(job(**merge))


def test_no_model_is_called_like_the_groups_form():
    with pytest.raises(ValidationError, match="'groups' is reserved"):
        ModelRef(name="groups", ref="local:x")
    assert ModelRef(name="groups2", ref="groups").ref == "groups"


def test_a_budget_of_device_seconds_is_a_limit_and_one_of_improvement_alone_is_none():
    plain = job()
    check_job(plain.evolve(budget=Budget(device_seconds=3600)))
    for limits in ({"expected_improvement": 0.1}, {}, {"trials": 5, "device_seconds": 0}):
        with pytest.raises(BudgetError, match="at least one of trials, item_evaluations, seconds, device_seconds"):
            check_job(plain.evolve(budget=Budget(**limits)))


def test_an_extension_gives_new_totals_and_keeps_the_rest():
    before = Budget(trials=5, seconds=60, expected_improvement=0.1)
    after = before.extended(Budget(trials=9, expected_improvement=0.05))
    assert after == Budget(trials=9, seconds=60, expected_improvement=0.05)
    assert before.extended(before) == before


@pytest.mark.parametrize(
    "further", [{"trials": 4}, {"item_evaluations": 100}, {"expected_improvement": 0.2}, {}, {"device_seconds": 1}]
)
def test_an_extension_never_ends_a_search_sooner(further):
    with pytest.raises(BudgetError):
        Budget(trials=5, expected_improvement=0.1).extended(Budget(**further))


def test_what_a_job_does_not_use_is_not_part_of_its_digest():
    plain = job()
    shown = plain.model_dump(mode="json")
    assert "warm_start" not in shown and set(shown["budget"]) == {"trials", "item_evaluations", "seconds"}
    warm = plain.evolve(warm_start=("job_01ABC",))
    assert warm.digest() != plain.digest()
    with pytest.raises(ValidationError):
        plain.evolve(warm_start=("trial_01ABC",))


OWN = {"family": "generation", "generator": {"train_after": 3}}


def sampling(**changes):
    fields = job().model_dump(mode="json")
    space = {"families": [MERGE, {**OWN, **changes.pop("family", {})}]}
    return SearchJob.model_validate({**fields, "space": space, **changes})


def test_a_space_is_closed_to_samples_until_the_search_s_own_generator_is_there():
    request = sampling()
    check_job(request)
    closed, whole = request.search_space(4), request.whole_space(4)
    assert closed.closed == {"generation"}
    assert {hole.name for hole in closed.holes} < {hole.name for hole in whole.holes}
    opened = request.search_space(4, Opening("ab" * 32, None))
    assert [hole.name for hole in opened.holes] == [hole.name for hole in whole.holes]
    assert opened.spec.families[-1].generator == "ab" * 32


@pytest.mark.parametrize(
    ("generator", "names"),
    [({}, ("base",)), ({"parents": True}, ("base", "a", "b"))],
)
def test_an_own_generator_learns_from_its_base_and_where_that_is_asked_from_all_models(generator, names):
    request = sampling(family={"generator": {"train_after": 3, **generator}})
    assert request.lesson.models == names
    around = {"sources": [{"name": "b", "model": "b"}], "merge": {"method": "passthrough"}}
    assert sampling(family={"around": around}).lesson.models == ("base", "b")
    assert job().lesson is None


def test_a_search_must_be_able_to_come_to_its_generator():
    with pytest.raises(BudgetError, match="ends before its generator"):
        check_job(sampling(budget={"trials": 3}))
    check_job(sampling(budget={"item_evaluations": 3}))


def test_the_base_of_an_own_generator_is_a_whole_model():
    models = [{"name": "base", "ref": "x"}, {"name": "a", "ref": "y", "base": "base"}, {"name": "b", "ref": "z"}]
    with pytest.raises(SpaceError, match="is an adapter"):
        check_job(sampling(models=models, family={"base": "a"}))


def test_differences_cannot_be_coded_of_a_single_source():
    alone = {"train_after": 0, "training": {"parameterisation": "delta"}}
    with pytest.raises(SpaceError, match="needs two"):
        check_job(sampling(family={"generator": alone}))
    check_job(sampling(family={"generator": {**alone, "parents": True}}))


def test_a_generator_learns_from_at_most_63_models_and_candidates_together():
    fits = {"train_after": 3, "parents": True, "top": 60}
    check_job(sampling(family={"generator": fits}))
    with pytest.raises(SpaceError, match=r"3 models and the best 61 candidates are 64: set `generator.top` to 60"):
        check_job(sampling(family={"generator": {**fits, "top": 61}}))
    check_job(sampling(family={"generator": {**fits, "top": 61, "parents": False}}))
    models = [{"name": f"m{place}", "ref": f"m{place}"} for place in range(3)]
    training = {"kind": "generator", "models": models, "elite": {"job": "job_01ABC", "top": 60}}
    assert read_job(training).elite.top == 60
    for refused in ({"job": "job_01ABC", "top": 61}, {"job": "job_01ABC", "top": 63}):
        with pytest.raises(ValidationError, match="top"):
            read_job({**training, "elite": refused})


def test_a_job_that_names_its_generator_keeps_its_digest():
    named = job().evolve(space={"families": [MERGE, {"family": "generation", "generator": "ab" * 32}]})
    assert named.sampled is None
    assert named.digest() == "793b47eb3ff0b4410cec2b82a5d76acf7672841c9ace4b2e2c28d9302ea37f5e"


def test_confirmation_reads_tasks_beside_those_of_the_search():
    fields = job().model_dump(mode="json")
    request = SearchJob.model_validate({**fields, "confirmation": {"also": [{"task": "hellaswag"}]}})
    assert [spec.task for spec in request.beyond.objective.tasks] == ["hellaswag"]
    assert request.beyond.confirmation.also == ()
    assert job().beyond is None
    for names in (["arc_easy"], ["hellaswag", "hellaswag"]):
        with pytest.raises(ValidationError, match=r"confirmation\.also"):
            SearchJob.model_validate({**fields, "confirmation": {"also": [{"task": name} for name in names]}})
    with pytest.raises(UnknownTaskError):
        check_job(request, tasks={"arc_easy"})
