import functools
import os
import shutil
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.tasks import side_of
from evaluation.catalog import TaskFolders, load_task
from evaluation.documents import canonical_parts, content_digest, evenly, side_text, sides

TASKS = ("arc_challenge", "winogrande", "hellaswag", "riddles")
DIGESTS = """
import sys
from pathlib import Path
from evaluation.catalog import TaskFolders
from evaluation.documents import canonical_parts, content_digest
folders = TaskFolders(Path(sys.argv[1]) / "datasets", (Path(sys.argv[1]) / "registered",))
for name in sys.argv[2:]:
    print(content_digest(canonical_parts(name, folders)))
"""


def digest(name, folders, shots=0):
    return content_digest(canonical_parts(name, folders, num_fewshot=shots))


@pytest.fixture
def elsewhere(folders, tmp_path):
    """The same files in another place."""
    shutil.copytree(folders.datasets.parent, tmp_path / "moved")
    return TaskFolders(tmp_path / "moved" / "datasets", (tmp_path / "moved" / "registered",))


def wino(sentence, option1, option2):
    return {"sentence": sentence, "option1": option1, "option2": option2, "answer": "1"}


def test_winogrande_twins_share_their_text_wherever_the_trigger_word_stands(folders):
    task = load_task("winogrande", folders)
    one = wino("The trophy does not fit the case because _ is too big.", "the trophy", "the case")
    twins = [
        wino("The trophy does not fit the case because _ is too small.", "the trophy", "the case"),
        wino("The trophy does fit the case because _ is so small.", "the case", "the trophy"),
        wino("the trophy barely fits; _ is big.", "The trophy", "the case "),
    ]
    assert side_text(task, one) == "the case | the trophy"
    assert {side_text(task, twin) for twin in twins} == {side_text(task, one)}


def test_hellaswag_goes_by_context_and_arc_by_question(folders):
    [hellaswag] = canonical_parts("hellaswag", folders)
    document = hellaswag.documents[0]
    assert side_text(hellaswag.task, document) == f"{document['ctx_a']} next she"
    other = {**document, "endings": ["x"], "label": "1", "activity_label": "Weaving"}
    assert side_text(hellaswag.task, other) == side_text(hellaswag.task, document)
    [arc] = canonical_parts("arc_easy", folders)
    assert side_text(arc.task, arc.documents[3]) == arc.documents[3]["question"]


def test_any_other_task_goes_by_its_prompt_or_by_its_choices_where_these_are_the_prompts(folders):
    task = load_task("riddles", folders)
    document = {"riddle": "What?", "choices": ["b", "a"], "answer": 0}
    assert side_text(task, document) == "Riddle: What?\nAnswer:"
    task.multiple_input = 2
    assert side_text(task, document) == "a | b"


def test_sides_of_a_stock_split_are_the_halves_of_the_hash(folders):
    parts = canonical_parts("arc_challenge", folders)
    assert sides(parts) == tuple(side_of(document["question"]) for document in parts[0].documents)
    assert set(sides(parts)) == {"search", "heldout"}


def test_documents_of_named_splits_are_numbered_search_first(folders):
    parts = canonical_parts("riddles", folders)
    assert [(part.side, len(part.documents)) for part in parts] == [("search", 9), ("heldout", 6)]
    assert sides(parts) == ("search",) * 9 + ("heldout",) * 6


def test_the_digest_is_the_same_in_a_fresh_process_with_another_hash_seed_and_folder(folders, elsewhere, repository):
    environment = {**os.environ, "PYTHONHASHSEED": "12345", "PYTHONPATH": str(repository)}
    command = [sys.executable, "-c", DIGESTS, str(elsewhere.datasets.parent), *TASKS]
    found = subprocess.run(command, env=environment, cwd=elsewhere.datasets, capture_output=True, text=True, check=True)
    assert found.stdout.split() == [digest(name, folders) for name in TASKS]


def test_the_digest_does_not_depend_on_shots(folders):
    assert digest("arc_easy", folders, shots=2) == digest("arc_easy", folders)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Riddle: ", "Puzzle: "),
        ("version: 2.0", "version: 2.1"),
        ("metric: acc_norm", "metric: exact_match"),
        ("validation_split: search\ntest_split: test", "validation_split: search"),
    ],
)
def test_the_digest_follows_prompts_metrics_splits_and_version(old, new, folders, elsewhere):
    file = elsewhere.registered[0] / "riddles.yaml"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    assert digest("riddles", elsewhere) != digest("riddles", folders)


def test_the_digest_follows_the_documents_and_their_order(folders, elsewhere):
    file = elsewhere.datasets / "winogrande" / "validation.parquet"
    rows = pq.read_table(file).to_pylist()
    pq.write_table(pa.Table.from_pylist(rows[::-1]), file)
    assert digest("winogrande", elsewhere) != digest("winogrande", folders)
    pq.write_table(pa.Table.from_pylist(rows), file)
    assert digest("winogrande", elsewhere) == digest("winogrande", folders)


def test_functions_count_by_their_source_and_partials_by_what_they_hold(folders):
    def first(document):
        return document["riddle"]

    def second(document):
        return document["riddle"] + "?"

    def with_prompt(function):
        parts = canonical_parts("riddles", folders)
        for part in parts:
            part.task.set_config("doc_to_text", function)
        return content_digest(parts)

    found = [with_prompt(f) for f in (first, second, functools.partial(first), functools.partial(first, x=1), len)]
    assert len(set(found)) == 5
    assert with_prompt(functools.partial(first)) == found[2]


def test_evenly_spreads_over_all_items():
    assert list(evenly(range(10), 3)) == [0, 3, 6]
    assert list(evenly(range(2), 5)) == [0, 1]
