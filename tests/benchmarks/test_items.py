import itertools

import pyarrow.parquet as pq
import pytest

from benchmarks.items import OFFICIAL, Writer, write_items


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    folder = write_items(tmp_path_factory.mktemp("items"), 0.0)
    return lambda task, split: pq.read_table(folder / task / f"{split}.parquet").to_pylist()


def test_the_official_sizes_are_those_of_the_benchmarks():
    assert sum(documents for _, documents, _ in OFFICIAL.values()) == 14_857


@pytest.mark.parametrize("task", OFFICIAL)
def test_every_task_has_documents_and_examples_in_the_columns_it_reads(task, items):
    split, _, _ = OFFICIAL[task]
    columns = {
        "arc_challenge": {"id", "question", "choices", "answerKey"},
        "arc_easy": {"id", "question", "choices", "answerKey"},
        "hellaswag": {"activity_label", "ctx_a", "ctx_b", "ctx", "endings", "label"},
        "winogrande": {"sentence", "option1", "option2", "answer"},
    }[task]
    for part in (split, "train"):
        rows = items(task, part)
        assert len(rows) == 64 and columns <= rows[0].keys()


def test_answers_name_one_of_the_choices(items):
    assert all(row["answerKey"] in row["choices"]["label"] for row in items("arc_easy", "test"))
    assert all(len(row["endings"]) == 4 and row["label"] in "0123" for row in items("hellaswag", "validation"))
    assert all("_" in row["sentence"] and row["answer"] in "12" for row in items("winogrande", "validation"))


def test_some_of_winogrande_s_sentences_have_twins_beside_them_that_differ_after_the_blank(items):
    rows = items("winogrande", "validation")
    stems = [row["sentence"].split("_")[0] for row in rows]
    twins = sum(one == other for one, other in itertools.pairwise(stems))
    assert 10 <= twins <= 26


def test_the_same_seed_writes_the_same_text():
    assert Writer(3).sentence(5, 9) == Writer(3).sentence(5, 9) != Writer(4).sentence(5, 9)
