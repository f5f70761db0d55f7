import os
import shutil

import datasets
import lm_eval.utils
import pyarrow.parquet as pq
import pytest
from lm_eval.tasks import TaskManager

from core.errors import TaskError, UnknownTaskError
from evaluation import catalog
from evaluation.catalog import LOCAL_TASKS, TaskFolders, known_tasks, load_task, split_names
from evaluation.prepare import build_requests


@pytest.fixture
def offline(monkeypatch):
    """Makes any use of the hub, or of the cache of `datasets`, fail."""

    def refuse(*args, **kwargs):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(datasets, "load_dataset", refuse)


@pytest.fixture
def registered(tmp_path, folders):
    """A copy of the registered folder, free to be changed: (folder, its YAML file)."""
    folder = tmp_path / "own"
    shutil.copytree(folders.registered[0], folder)
    return folder, folder / "riddles.yaml"


def test_the_stock_names_are_those_of_the_harness_itself():
    index = TaskManager().task_index
    theirs = {name: entry["yaml_path"] for name, entry in index.items() if entry["type"] == "task"}
    assert {name: str(path) for name, path in catalog._stock().items()} == theirs


def test_known_tasks_are_stock_and_registered_ones_sorted(folders):
    names = known_tasks(folders)
    assert list(names) == sorted(names)
    assert {*LOCAL_TASKS, "riddles", "gsm8k"} <= set(names)
    assert "riddles" not in known_tasks(TaskFolders())


def test_an_unknown_task_is_answered_with_the_nearest_names(folders):
    with pytest.raises(UnknownTaskError, match="unknown task 'helaswag': did you mean 'hellaswag'"):
        load_task("helaswag", folders)
    with pytest.raises(UnknownTaskError, match="did you mean 'riddles'"):
        load_task("ridles", folders)


@pytest.mark.parametrize("name", [*LOCAL_TASKS, "riddles"])
def test_local_files_are_read_without_hub_and_without_cache(name, folders, offline, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    task = load_task(name, folders)
    assert len(task.task_docs) in (14, 6)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", LOCAL_TASKS)
def test_documents_are_those_that_the_library_itself_would_read(name, folders, tmp_path):
    task = load_task(name, folders)
    split = task.config.test_split or task.config.validation_split
    files = {split: str(folders.datasets / name / f"{split}.parquet")}
    theirs = datasets.load_dataset("parquet", data_files=files, cache_dir=str(tmp_path))[split]
    assert task.dataset[split].features == theirs.features
    assert list(task.dataset[split]) == list(theirs)


def test_metric_version_and_prompts_are_the_stock_ones(folders):
    task = load_task("arc_challenge", folders)
    assert (task.VERSION, sorted(task.aggregation()), task.config.doc_to_text) == (
        1.0,
        ["acc", "acc_norm"],
        "Question: {{question}}\nAnswer:",
    )


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_missing_parquet_file_is_named_with_the_way_out(split, folders, tmp_path):
    shutil.copytree(folders.datasets, tmp_path / "d")
    (tmp_path / "d" / "arc_easy" / f"{split}.parquet").unlink()
    with pytest.raises(TaskError, match=rf"arc_easy/{split}\.parquet.*unset HUARIZO_DATASETS"):
        load_task("arc_easy", TaskFolders(tmp_path / "d"))


def test_a_split_that_no_run_reads_may_be_missing(folders, tmp_path):
    shutil.copytree(folders.datasets, tmp_path / "d")
    (tmp_path / "d" / "arc_easy" / "validation.parquet").unlink()
    assert len(load_task("arc_easy", TaskFolders(tmp_path / "d")).task_docs) == 14


def test_a_damaged_parquet_file_is_named(folders, tmp_path):
    shutil.copytree(folders.datasets, tmp_path / "d")
    (tmp_path / "d" / "winogrande" / "validation.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(TaskError, match=r"winogrande/validation\.parquet' cannot be read"):
        load_task("winogrande", TaskFolders(tmp_path / "d"))


def test_a_hub_out_of_reach_is_said_with_the_way_out(offline):
    with pytest.raises(TaskError, match=r"no route to host\): set HUARIZO_DATASETS"):
        load_task("hellaswag", TaskFolders())


def test_a_folder_that_hides_the_hub_s_data_set_is_refused(offline, tmp_path, monkeypatch):
    (tmp_path / "hellaswag").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TaskError, match="hides the hub's data set"):
        load_task("hellaswag", TaskFolders())


def test_a_generation_task_is_refused_before_any_data_is_asked_for(offline):
    with pytest.raises(TaskError, match="'gsm8k' is 'generate_until'"):
        load_task("gsm8k", TaskFolders())


def test_files_named_in_a_yaml_are_looked_for_beside_it(registered, tmp_path, monkeypatch):
    folder, _ = registered
    monkeypatch.chdir(tmp_path)
    assert len(load_task("riddles", TaskFolders(None, (folder,))).task_docs) == 6


def test_a_yaml_s_missing_data_file_is_named(registered):
    folder, _ = registered
    (folder / "riddles" / "search.parquet").unlink()
    with pytest.raises(TaskError, match=r"search\.parquet' does not exist"):
        load_task("riddles", TaskFolders(None, (folder,)))


@pytest.mark.parametrize("as_list", [False, True])
def test_json_files_hold_the_same_documents(registered, as_list, offline):
    folder, file = registered
    expected = list(load_task("riddles", TaskFolders(None, (folder,))).task_docs)
    for parquet in (folder / "riddles").glob("*.parquet"):
        frame = pq.read_table(parquet).to_pandas()
        frame.to_json(parquet.with_suffix(".json"), orient="records", lines=not as_list)
    file.write_text(
        file.read_text().replace("dataset_path: parquet", "dataset_path: json").replace(".parquet", ".json")
    )
    assert list(load_task("riddles", TaskFolders(None, (folder,))).task_docs) == expected


def test_several_files_make_one_split(registered):
    folder, file = registered
    file.write_text(file.read_text().replace("riddles/test.parquet", "[riddles/test.parquet, riddles/search.parquet]"))
    assert len(load_task("riddles", TaskFolders(None, (folder,))).task_docs) == 6 + 9


def test_a_registered_task_may_not_take_a_stock_name(registered):
    folder, file = registered
    file.write_text(file.read_text().replace("task: riddles", "task: winogrande"))
    with pytest.raises(TaskError, match="the name of a stock task"):
        load_task("winogrande", TaskFolders(None, (folder,)))


def test_one_name_registered_twice_is_refused(registered):
    folder, file = registered
    shutil.copy(file, folder / "again.yaml")
    with pytest.raises(TaskError, match=r"again\.yaml and .*riddles\.yaml: rename one"):
        load_task("riddles", TaskFolders(None, (folder,)))


def test_a_yaml_that_cannot_be_set_up_is_an_error_of_the_task(registered):
    folder, file = registered
    file.write_text(file.read_text().replace("{{answer}}", "{{nothing}}"))
    with pytest.raises(TaskError, match=r"'riddles' could not be set up .*nothing"):
        load_task("riddles", TaskFolders(None, (folder,)))


def test_a_yaml_that_cannot_be_parsed_is_named(registered):
    folder, file = registered
    file.write_text(file.read_text() + "filter_list: [unclosed")
    with pytest.raises(TaskError, match=r"'riddles' cannot be read from .*riddles\.yaml"):
        load_task("riddles", TaskFolders(None, (folder,)))


def test_shots_that_the_yaml_forbids_are_refused(registered):
    folder, file = registered
    file.write_text(file.read_text() + "num_fewshot: 0\n")
    assert load_task("riddles", TaskFolders(None, (folder,))).config.num_fewshot == 0
    with pytest.raises(TaskError, match="sets num_fewshot: 0 itself"):
        load_task("riddles", TaskFolders(None, (folder,)), num_fewshot=1)


def test_shots_that_the_yaml_suggests_give_way_to_those_asked_for(registered):
    folder, file = registered
    file.write_text(file.read_text() + "num_fewshot: 5\n")
    assert load_task("riddles", TaskFolders(None, (folder,))).config.num_fewshot == 0


def test_a_side_of_a_task_with_its_own_splits_evaluates_on_that_split(folders):
    assert split_names(load_task("riddles", folders)) == {"search": "search", "heldout": "test"}
    documents = {side: list(load_task("riddles", folders, split=side).task_docs) for side in ("search", "heldout")}
    root = folders.registered[0] / "riddles"
    assert documents["search"] == pq.read_table(root / "search.parquet").to_pylist()
    assert documents["heldout"] == pq.read_table(root / "test.parquet").to_pylist()


def test_a_stock_task_names_no_splits(folders):
    assert split_names(load_task("winogrande", folders)) == {}


@pytest.mark.parametrize(
    "named",
    ["search_split: search", "search_split: test, heldout_split: test", "search_split: search, heldout_split: dev"],
)
def test_split_names_that_make_no_sense_are_refused(named, registered):
    folder, file = registered
    file.write_text(file.read_text().replace("search_split: search, heldout_split: test", named))
    with pytest.raises(TaskError, match="two different splits of its data"):
        split_names(load_task("riddles", TaskFolders(None, (folder,))))


def test_few_shot_examples_stay_stock_when_the_task_has_no_training_split(registered):
    folder, file = registered
    file.write_text(file.read_text().replace("training_split: train\n", ""))
    pool = {
        side: load_task("riddles", TaskFolders(None, (folder,)), num_fewshot=1, split=side).sampler.docs
        for side in (None, "search", "heldout")
    }
    search = pq.read_table(folder / "riddles" / "search.parquet").to_pylist()
    assert pool == {None: search, "search": search, "heldout": search}


def test_a_file_that_cannot_be_read_hides_no_other(registered, caplog):
    folder, _ = registered
    (folder / "a_gone.yaml").symlink_to(folder / "nowhere.yaml")
    (folder / "b_loop.yaml").symlink_to(folder / "b_loop.yaml")
    (folder / "c_latin.yaml").write_bytes("task: caf\xe9\n".encode("latin-1"))
    (folder / "d_folder.yaml").mkdir()
    os.mkfifo(folder / "e_pipe.yaml")
    folders = TaskFolders(None, (folder,))
    assert "riddles" in known_tasks(folders)
    assert len(load_task("riddles", folders).task_docs) == 6
    for name in ("a_gone", "b_loop", "c_latin"):
        assert f"{name}.yaml" in caplog.text


@pytest.mark.parametrize("sampler", ["default", "first_n"])
def test_examples_that_are_read_singly_are_drawn_alike(sampler, folders, monkeypatch):
    def prompts():
        task = load_task("hellaswag", folders, num_fewshot=3, sampler=sampler)
        return task.sampler.docs, build_requests(task)

    at_once, expected = prompts()
    monkeypatch.setattr(catalog, "_EXAMPLES_AT_ONCE", 3)
    singly, found = prompts()
    assert isinstance(at_once, list) and isinstance(singly, catalog.Examples)
    assert list(singly) == at_once and singly[1:3] == at_once[1:3] and singly[-1] == at_once[-1]
    assert found == expected


def test_the_documents_of_a_split_are_set_up_once(folders, monkeypatch):
    seen, real = [], datasets.Dataset.map
    monkeypatch.setattr(datasets.Dataset, "map", lambda self, *args, **options: seen.append(self) or real(self, *args))
    build_requests(load_task("hellaswag", folders, num_fewshot=2))
    assert len(seen) == 2  # the examples and the documents


def test_a_template_is_compiled_once_and_only_while_it_is_asked_for():
    environment = lm_eval.utils.env
    with catalog.templates_compiled_once():
        once = environment.from_string("{{a}}")
        assert environment.from_string("{{a}}") is once and once.render(a=1) == "1"
    assert environment.from_string("{{a}}") is not once
