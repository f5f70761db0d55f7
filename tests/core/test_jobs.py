import pytest
from pydantic import ValidationError

from core.errors import RecipeError
from core.jobs import ModelRef, SearchJob, check_job

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
