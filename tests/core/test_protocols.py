"""What a whole evaluation runs: a protocol's own tasks, some of them, or any under the stock prompts."""

import pytest

from core.errors import InvalidInputError, UnknownNameError
from core.protocols import PROTOCOLS, evaluation_of


def test_a_protocol_that_fixes_tasks_gives_their_shots_and_metrics():
    asked = evaluation_of("open-llm-v1-core", ())
    assert [(each.task, each.num_fewshot, each.metric) for each in asked.tasks] == [
        ("arc_challenge", 25, "acc_norm"), ("hellaswag", 10, "acc_norm"), ("winogrande", 5, "acc"),
    ]  # fmt: skip
    assert asked.whole


def test_some_of_a_protocol_s_tasks_are_run_in_its_order_and_are_not_the_whole():
    asked = evaluation_of("open-llm-v1", ("gsm8k", "mmlu"))
    assert [(each.task, each.num_fewshot) for each in asked.tasks] == [("mmlu", 5), ("gsm8k", 5)]
    assert not asked.whole


def test_tasks_without_a_protocol_are_asked_under_the_stock_prompts():
    asked = evaluation_of(None, ("arc_easy", "my_task"), 3)
    assert asked.protocol == PROTOCOLS["search"] and not asked.whole
    assert [(each.task, each.num_fewshot, each.metric) for each in asked.tasks] == [
        ("arc_easy", 3, None), ("my_task", 3, None),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("protocol", "tasks", "shots", "error", "message"),
    [
        ("open-llm", (), None, UnknownNameError, "did you mean 'open-llm-v1'"),
        ("zzz", (), None, UnknownNameError, "there are search, search-fast"),
        ("search-fast", (), None, InvalidInputError, "name some with --tasks"),
        ("open-llm-v1-core", ("gsm8k",), None, InvalidInputError, "not among them"),
        ("open-llm-v1-core", (), 0, InvalidInputError, "fixes the shots"),
        (None, ("a", "a"), None, InvalidInputError, "named once"),
        (None, ("a",), -1, InvalidInputError, "0 or more"),
    ],
)
def test_what_does_not_go_together_is_refused(protocol, tasks, shots, error, message):
    with pytest.raises(error, match=message):
        evaluation_of(protocol, tasks, shots)
