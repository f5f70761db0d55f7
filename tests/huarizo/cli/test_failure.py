"""Failures are one clear line each."""

from __future__ import annotations

import pydantic
import pytest

from core.errors import HuarizoError, InvalidInputError, UnknownMethodError
from core.jobs import SearchJob
from huarizo.cli.failure import error_of, lines_of, read_object
from huarizo.client import ApiProblem

JOB = {
    "models": [{"name": "a", "ref": "local:a"}],
    "space": {"families": [{"family": "merge", "methods": ["linear"]}]},
    "objective": {"tasks": [{"task": "arc_easy"}]},
    "budget": {"trials": 4},
}


def broken(**changes: object) -> list[str]:
    with pytest.raises(pydantic.ValidationError) as caught:
        SearchJob.model_validate({**JOB, **changes})
    return lines_of(caught.value)


def test_an_error_is_its_code_its_place_and_its_message() -> None:
    error = UnknownMethodError.suggest("tyes", ["ties", "linear"], where="space.families.0")
    assert lines_of(error) == [
        "huarizo: unknown_method: space.families.0: unknown merge method 'tyes': did you mean 'ties'?"
    ]


def test_a_problem_of_the_service_reads_like_an_error_of_ours() -> None:
    one = ApiProblem(404, "not_found", "No such row", "no job 'job_1'")
    assert lines_of(one) == ["huarizo: not_found: no job 'job_1'"]
    two = ApiProblem(422, "invalid_input", "t", "d", errors=[("budget", "a"), ("seed", "b")])
    assert lines_of(two) == ["huarizo: invalid_input: budget: a", "huarizo: invalid_input: seed: b"]


def test_an_unknown_field_gets_the_one_it_resembles() -> None:
    assert broken(bugdet={}) == ["huarizo: invalid_input: bugdet: unknown field 'bugdet': did you mean 'budget'?"]
    assert broken(zzzz=1) == ["huarizo: invalid_input: zzzz: unknown field 'zzzz': remove it"]


def test_a_value_out_of_bounds_is_told_with_the_value() -> None:
    (line,) = broken(budget={"trials": -1})
    assert line.startswith("huarizo: invalid_input: budget.trials: ")
    assert line.endswith("but got -1")


def test_a_missing_field_and_a_broken_rule_of_ours_are_both_told() -> None:
    twice = [{"name": "a", "ref": "local:a"}, {"name": "a", "ref": "local:b"}]
    (line,) = broken(models=twice)
    assert line == "huarizo: invalid_input: model names must be unique, but got ['a', 'a']: rename one"
    missing = "huarizo: invalid_input: objective.tasks.0.task: this field is required: add it"
    assert broken(objective={"tasks": [{}]}) == [missing]


def test_what_has_no_code_is_internal_and_names_the_way_to_the_traceback() -> None:
    (line,) = lines_of(KeyError("x"))
    assert line.startswith("huarizo: internal: KeyError")
    assert "--debug" in line


def test_a_code_told_by_another_process_becomes_the_error_again() -> None:
    assert isinstance(error_of("unknown_method", "m"), UnknownMethodError)
    assert type(error_of("never heard", "m")) is HuarizoError


@pytest.mark.parametrize(("text", "said"), [("{,}", "line 1 column 2"), ("[1]", "got list"), ("", "line 1 column 1")])
def test_what_is_no_json_object_is_refused_with_its_place(text: str, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        read_object(text, "a job")
