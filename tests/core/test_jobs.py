import pytest
from pydantic import ValidationError

from core.errors import BudgetError, RecipeError
from core.jobs import Budget, ModelRef, SearchJob, check_job

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
