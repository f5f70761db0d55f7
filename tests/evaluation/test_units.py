import lm_eval.tasks
import pytest
from lm_eval.api.samplers import FirstNSampler

from core.errors import TaskError, UnknownTaskError
from evaluation.catalog import TaskFolders
from evaluation.units import load_unit


def test_a_task_is_its_own_unit_with_its_shots(folders):
    unit = load_unit("arc_easy", folders, num_fewshot=3)
    assert list(unit.tasks) == ["arc_easy"] == list(unit.load_task_or_group(["arc_easy"]))
    assert unit.tasks["arc_easy"].get_config("num_fewshot") == 3
    assert len(unit.tasks["arc_easy"].task_docs) == 14


def test_a_group_of_stock_and_own_tasks_reads_local_documents(folders, tmp_path):
    (tmp_path / "groups.yaml").write_text("group: both\ntask: [arc_easy, riddles]\n")
    unit = load_unit("both", TaskFolders(folders.datasets, (*folders.registered, tmp_path)), num_fewshot=None)
    assert {name: len(task.task_docs) for name, task in unit.tasks.items()} == {"arc_easy": 14, "riddles": 6}
    assert all(task.get_config("num_fewshot") == 0 for task in unit.tasks.values())
    assert lm_eval.tasks.ConfigurableTask is lm_eval.api.task.ConfigurableTask


def test_the_same_first_examples_are_a_choice_of_the_sampler_alone(folders):
    drawn, first = (load_unit("arc_easy", folders, num_fewshot=2, sampler=way) for way in ("default", "first_n"))
    assert type(first.tasks["arc_easy"].sampler) is FirstNSampler is not type(drawn.tasks["arc_easy"].sampler)
    assert first.tasks["arc_easy"].config.fewshot_config == drawn.tasks["arc_easy"].config.fewshot_config


def test_more_shots_than_examples_are_refused_with_what_is_drawn(folders):
    with pytest.raises(TaskError, match="8 shots of task 'winogrande' draw 9 examples, but there are 8"):
        load_unit("winogrande", folders, num_fewshot=8)
    assert load_unit("winogrande", folders, num_fewshot=7).tasks["winogrande"].get_config("num_fewshot") == 7


def test_shots_that_a_task_forbids_are_refused(folders, tmp_path):
    own = (folders.registered[0] / "riddles.yaml").read_text().replace("task: riddles", "task: bare\nnum_fewshot: 0")
    (tmp_path / "bare.yaml").write_text(own.replace("riddles/", f"{folders.registered[0]}/riddles/"))
    places = TaskFolders(registered=(tmp_path,))
    with pytest.raises(TaskError, match="num_fewshot: 0 itself"):
        load_unit("bare", places, num_fewshot=1)
    assert load_unit("bare", places, num_fewshot=None).tasks["bare"].get_config("num_fewshot") == 0


def test_an_unknown_name_is_told_what_it_resembles_groups_among_it(folders):
    with pytest.raises(UnknownTaskError, match="'mmlu_stem'"):
        load_unit("mmlu_stm", folders, num_fewshot=None)
    with pytest.raises(UnknownTaskError, match="HUARIZO_TASK_FOLDERS"):
        load_unit("qqqqqqqqqqqq", folders, num_fewshot=None)


def test_a_group_may_be_loaded_again_under_the_same_names(folders, tmp_path):
    (tmp_path / "again.yaml").write_text("group: again\ntask: [riddles]\n")
    places = TaskFolders(folders.datasets, (*folders.registered, tmp_path))
    first, second = (load_unit("again", places, num_fewshot=None) for _ in range(2))
    assert list(first.tasks) == list(second.tasks) == ["riddles"]


@pytest.mark.parametrize(
    ("text", "message"), [("group: mmlu\ntask: [riddles]\n", "choose others"), ("group: [\n", "cannot be read")]
)
def test_a_folder_that_takes_a_stock_name_or_is_no_yaml_is_refused(folders, tmp_path, text, message):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(TaskError, match=message):
        load_unit("some_group", TaskFolders(folders.datasets, (tmp_path,)), num_fewshot=None)
