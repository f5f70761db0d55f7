import random

import numpy as np
import pytest

from core.errors import TaskError
from evaluation.answers import AnswerRule, answer_rule, check_metric
from evaluation.catalog import LOCAL_TASKS, load_task


@pytest.mark.parametrize("name", [*LOCAL_TASKS, "riddles"])
def test_the_rule_judges_as_process_results_does_ties_included(name, folders):
    task = load_task(name, folders)
    draw = random.Random(1)
    seen = set()
    for document in task.task_docs:
        choices = task.doc_to_choice(document)
        for _ in range(20):
            lls = [draw.choice([-1.0, -2.5, -4.0, draw.uniform(-9, 0)]) for _ in choices]
            theirs = task.process_results(document, [(ll, False) for ll in lls])
            for metric in {"acc", "acc_norm"} & theirs.keys():
                correct, _ = answer_rule(task, document, metric).judge(np.array(lls))
                assert correct == theirs[metric]
                seen.add((metric, correct))
    assert {("acc", 0), ("acc", 1)} <= seen


def test_the_margin_is_right_minus_best_wrong():
    rule = AnswerRule(right=(1,), lengths=np.ones(3))
    assert rule.judge(np.array([-3.0, -1.0, -2.5])) == (1, 1.5)
    assert rule.judge(np.array([-0.5, -1.0, -2.5])) == (0, -0.5)


def test_the_normalised_margin_is_per_character_of_each_choice():
    rule = AnswerRule(right=(0,), lengths=np.array([4.0, 2.0]))
    assert rule.judge(np.array([-4.0, -3.0])) == (1, 0.5)


def test_of_equal_choices_the_first_is_chosen():
    assert AnswerRule(right=(1,), lengths=np.ones(2)).judge(np.array([-1.0, -1.0])) == (0, 0.0)
    assert AnswerRule(right=(0,), lengths=np.ones(2)).judge(np.array([-1.0, -1.0])) == (1, 0.0)


def test_with_several_right_choices_the_best_of_them_counts():
    assert AnswerRule(right=(0, 2), lengths=np.ones(3)).judge(np.array([-5.0, -2.0, -1.0])) == (1, 1.0)


class FakeTask:
    """Just what the rule reads of a task."""

    multiple_input = 0

    def __init__(self, choices, gold):
        self.doc_to_choice, self.doc_to_target = (lambda _: choices), (lambda _: gold)
        self.multiple_target = len(gold) if isinstance(gold, list) else 0


@pytest.mark.parametrize(
    ("gold", "right"), [(1, (1,)), ("b", (1,)), ([0, 2], (0, 2)), ([2, 9], (2,)), (3, ()), ("d", ())]
)
def test_golds_are_read_as_index_text_or_list(gold, right):
    assert answer_rule(FakeTask(["a", "b", "c"], gold), {}, "acc").right == right


ONE = [0, 1, 2, 3, 77, -1, -3, -4, -100, True, np.int64(1), np.int64(7), 1.0, None, "b", "d", "1", (1,), {1}]
SEVERAL = [
    [],
    [1],
    [0, 2],
    [0, 1, 2],
    [2, 9],
    [9],
    [-100],
    [-1, 1],
    [-4],
    ["b"],
    [1.0],
    [True],
    (0, 2),
    (0, 9),
    (-100, 1),
]


@pytest.mark.parametrize("first", [0, 2], ids=["one", "several"])
@pytest.mark.parametrize("gold", ONE + SEVERAL, ids=repr)
def test_any_gold_is_judged_as_by_process_results_or_refused_where_that_fails(gold, first, folders, monkeypatch):
    """`first`: how many right answers the task's first document has, on which the harness relies for all."""
    task = load_task("riddles", folders)
    choices = ["aa", "b", "cccc"]
    monkeypatch.setattr(task, "doc_to_choice", lambda _: choices)
    monkeypatch.setattr(task, "doc_to_target", lambda _: gold)
    monkeypatch.setattr(task, "multiple_target", first)
    draw = random.Random(4)
    for lls in [[draw.uniform(-9, 0) for _ in choices] for _ in range(12)]:
        try:
            theirs = task.process_results({}, [(ll, False) for ll in lls])
        except (TypeError, IndexError, ValueError):
            with pytest.raises(TaskError, match="right answer of a document must be"):
                answer_rule(task, {}, "acc")
            continue
        for metric in ("acc", "acc_norm"):
            correct, margin = answer_rule(task, {}, metric).judge(np.array(lls))
            assert correct == theirs[metric] and np.isfinite(margin)


@pytest.mark.parametrize(("right", "correct"), [((), 0), ((0, 1, 2), 1)])
def test_where_no_answer_can_be_told_from_another_the_margin_is_0(right, correct):
    assert AnswerRule(right, np.ones(3)).judge(np.array([-5.0, -2.0, -1.0])) == (correct, 0.0)


def test_an_empty_choice_cannot_be_normalised():
    with pytest.raises(TaskError, match="acc_norm"):
        answer_rule(FakeTask(["", "b"], 1), {}, "acc_norm")
    assert answer_rule(FakeTask(["", "b"], 1), {}, "acc").right == (1,)


def test_a_metric_that_the_task_does_not_report_is_refused(folders):
    with pytest.raises(TaskError, match=r"does not report 'acc_norm' but \['acc'\]"):
        check_metric(load_task("winogrande", folders), "acc_norm")


def test_a_task_that_judges_by_itself_is_refused(folders):
    task = load_task("riddles", folders)
    task.set_config("process_results", lambda doc, results: {"acc": 0.5})
    with pytest.raises(TaskError, match="of its own"):
        check_metric(task, "acc")


def test_a_metric_that_is_no_mean_is_refused(folders):
    task = load_task("riddles", folders)
    task._aggregation_list["acc"] = max
    with pytest.raises(TaskError, match="no mean"):
        check_metric(task, "acc")
