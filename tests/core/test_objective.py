from __future__ import annotations

import pytest
from pydantic import ValidationError

from core.objective import Objective, TaskSpec
from core.protocols import PROTOCOLS

CORE = [("arc_challenge", 25, "acc_norm"), ("hellaswag", 10, "acc_norm"), ("winogrande", 5, "acc")]


def told(objective):
    return [(spec.task, spec.num_fewshot, spec.metric_name) for spec in objective.tasks]


def test_the_leaderboards_core_brings_its_tasks_shots_and_metrics():
    assert told(Objective(protocol="open-llm-v1-core")) == CORE


def test_the_cores_tasks_may_be_given_with_weights_of_ones_own():
    tasks = [TaskSpec(task=name, num_fewshot=shots, weight=2.0) for name, shots, _ in reversed(CORE)]
    assert Objective(protocol="open-llm-v1-core", tasks=tasks).shares == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize(
    "tasks",
    [
        [{"task": "arc_challenge", "num_fewshot": 25}],
        [{"task": name, "num_fewshot": 0} for name, _, _ in CORE],
        [{"task": name, "num_fewshot": shots, "metric": "acc"} for name, shots, _ in CORE],
    ],
)
def test_other_tasks_shots_or_metrics_are_not_that_protocol(tasks):
    with pytest.raises(ValidationError, match=r"leave out `tasks`, or use protocol 'search'"):
        Objective(protocol="open-llm-v1-core", tasks=tasks)


def test_the_six_tasks_guide_no_search():
    with pytest.raises(ValidationError, match=r"use 'open-llm-v1-core' for the search"):
        Objective(protocol="open-llm-v1")
    assert [fixed.task for fixed in PROTOCOLS["open-llm-v1"].tasks][3:] == ["mmlu", "truthfulqa_mc2", "gsm8k"]


def test_a_free_protocol_needs_tasks_and_takes_any_shots():
    with pytest.raises(ValidationError, match=r"at least one task"):
        Objective(protocol="search-fast")
    objective = Objective(protocol="search-fast", tasks=[{"task": "arc_easy", "num_fewshot": 3}])
    assert told(objective) == [("arc_easy", 3, "acc_norm")]
    assert objective.rules.sampler == "first_n" and Objective(tasks=objective.tasks).rules.sampler == "default"
