import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.errors import TaskError, UnknownTaskError
from evaluation.catalog import TaskFolders
from evaluation.inspect import inspect_task


def test_the_content_of_a_stock_task(folders):
    content = inspect_task("arc_challenge", folders)
    assert (content.name, content.version, content.documents, content.metrics) == (
        "arc_challenge",
        "1.0",
        14,
        ("acc", "acc_norm"),
    )
    assert sorted(content.side("search") + content.side("heldout")) == list(range(14))
    assert content.has_fewshot
    assert len(content.content_digest) == 64


def test_the_content_of_a_task_with_its_own_splits(folders):
    content = inspect_task("riddles", folders)
    assert (content.side("search"), content.side("heldout")) == (tuple(range(9)), tuple(range(9, 15)))
    assert content.version == "2.0"


def test_mean_sizes_are_those_of_the_prompts(folders):
    rows = pq.read_table(folders.datasets / "winogrande" / "validation.parquet").to_pylist()
    content = inspect_task("winogrande", folders)
    options = [len(row["sentence"]) - 1 + len(row[key]) for row in rows for key in ("option1", "option2")]
    assert content.mean_characters == pytest.approx(sum(options) / len(options))
    assert (content.mean_choices, content.metrics) == (2.0, ("acc",))


def test_twins_always_fall_on_one_side(tmp_path):
    pairs = [(f"the {a}", f"the {b}") for a in ("vase", "lamp", "desk", "book") for b in ("shelf", "floor", "wall")]
    rows = []
    for a, b in pairs:
        rows.append({"sentence": f"{a} fell off {b} as _ was high.", "option1": a, "option2": b, "answer": "2"})
        rows.append({"sentence": f"{a} fell off {b} as _ was loose.", "option1": b, "option2": a, "answer": "2"})
    folder = tmp_path / "winogrande"
    folder.mkdir()
    for split in ("train", "validation"):
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{split}.parquet")
    search = set(inspect_task("winogrande", TaskFolders(tmp_path)).side("search"))
    assert 0 < len(search) < len(rows)
    assert all((2 * n in search) == (2 * n + 1 in search) for n in range(len(pairs)))


def test_a_task_that_forbids_shots_has_no_examples(folders, tmp_path):
    shutil.copytree(folders.registered[0], tmp_path / "own")
    with (tmp_path / "own" / "riddles.yaml").open("a") as file:
        file.write("num_fewshot: 0\n")
    assert not inspect_task("riddles", TaskFolders(None, (tmp_path / "own",))).has_fewshot


def test_an_unknown_task_and_an_empty_one_are_refused(folders, tmp_path):
    with pytest.raises(UnknownTaskError):
        inspect_task("no such", folders)
    (tmp_path / "arc_easy").mkdir()
    rows = pq.read_table(folders.datasets / "arc_easy" / "test.parquet")
    for split in ("train", "test"):
        pq.write_table(rows.slice(0, 0), tmp_path / "arc_easy" / f"{split}.parquet")
    with pytest.raises(TaskError, match="arc_easy"):
        inspect_task("arc_easy", TaskFolders(tmp_path))
