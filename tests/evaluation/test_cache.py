from __future__ import annotations

import logging
import os
import shutil
import sys
from dataclasses import fields
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file

from core.objective import TaskSpec
from evaluation import cache as module
from evaluation import prepare as preparing
from evaluation.cache import PlanCache
from evaluation.catalog import LOCAL_TASKS, TaskFolders
from evaluation.prepare import prepare
from evaluation.trees import TokenTree


@pytest.fixture
def ready(folders, tokenizer_folder, tmp_path):
    """Prepares one task with a cache in `tmp_path`: `ready("arc_easy", num_fewshot=2)`."""

    def make(name, *, folders=folders, tokenizer_folder=tokenizer_folder, sampler="default", add_bos=False, **spec):
        length = spec.pop("max_length", 512)
        specs = [TaskSpec(task=name, **spec)]
        options = {"sampler": sampler, "add_bos": add_bos, "cache": PlanCache(tmp_path / "prepared")}
        return prepare(specs, tokenizer_folder, folders, max_length=length, **options).tasks[name]

    return make


@pytest.fixture
def built(monkeypatch):
    """The tasks whose prompts were built."""
    seen, real = [], preparing.build_requests
    monkeypatch.setattr(preparing, "build_requests", lambda task: seen.append(task.config.task) or real(task))
    return seen


def same(left, right):
    assert left.fingerprint("float32", "cpu") == right.fingerprint("float32", "cpu")
    assert left.largest_token == right.largest_token
    for a, b in zip(left.documents, right.documents, strict=True):
        assert a.rule.right == b.rule.right and a.tree.requests == b.tree.requests
        np.testing.assert_array_equal(a.rule.lengths, b.rule.lengths)
        for field in fields(TokenTree):
            x, y = getattr(a.tree, field.name), getattr(b.tree, field.name)
            np.testing.assert_array_equal(x, y)
            assert np.asarray(x).dtype == np.asarray(y).dtype


@pytest.mark.parametrize("shots", [0, 2])
@pytest.mark.parametrize("name", [*LOCAL_TASKS, "riddles"])
def test_the_second_time_everything_comes_from_disk_and_is_the_same(name, shots, ready, built):
    first = ready(name, num_fewshot=shots)
    assert built
    built.clear()
    same(ready(name, num_fewshot=shots), first)
    assert built == []


@pytest.mark.parametrize(
    "change",
    [
        {"num_fewshot": 1},
        {"num_fewshot": 2, "sampler": "first_n"},
        {"metric": "acc", "num_fewshot": 2},
        {"max_length": 100, "num_fewshot": 2},
        {"add_bos": True, "num_fewshot": 2},
    ],
)
def test_whatever_changes_prompts_or_rules_is_built_anew(ready, built, change):
    ready("arc_easy", num_fewshot=2)
    built.clear()
    ready("arc_easy", **change)
    assert built


def test_another_document_or_another_example_is_another_task(ready, built, folders, tmp_path):
    ready("arc_easy", num_fewshot=2)
    for split in ("test", "train"):
        copied = tmp_path / split
        shutil.copytree(folders.datasets, copied)
        shutil.copyfile(
            folders.datasets / "arc_challenge" / f"{split}.parquet", copied / "arc_easy" / f"{split}.parquet"
        )
        built.clear()
        ready("arc_easy", num_fewshot=2, folders=TaskFolders(copied))
        assert built, split


def test_without_shots_the_example_pool_does_not_matter(ready, built, folders, tmp_path):
    ready("arc_easy")
    shutil.copytree(folders.datasets, tmp_path / "data")
    name = "train.parquet"
    shutil.copyfile(folders.datasets / "arc_challenge" / name, tmp_path / "data" / "arc_easy" / name)
    built.clear()
    ready("arc_easy", folders=TaskFolders(tmp_path / "data"))
    assert built == []


def test_a_function_beside_the_yaml_that_changes_is_noticed(ready, built, folders, tmp_path):
    shutil.copytree(folders.registered[0], tmp_path / "registered")
    mine = TaskFolders(None, (tmp_path / "registered",))
    for text in ("A = 1\n", "A = 2\n"):
        (tmp_path / "registered" / "own.py").write_text(text)
        built.clear()
        ready("riddles", folders=mine)
        assert built


@pytest.fixture
def spread(folders, tmp_path, monkeypatch):
    """The riddles over three folders: (their TaskFolders, a file included, one beside it, a package, one it imports)."""
    root = tmp_path / "spread"
    own, base, path = root / "own", root / "base", root / "path"
    shutil.copytree(folders.registered[0] / "riddles", own / "riddles")
    for folder in (base, path / "herd_words" / "inner"):
        folder.mkdir(parents=True)
    text = (folders.registered[0] / "riddles.yaml").read_text().replace("task: riddles\n", "")
    (base / "base.yaml").write_text(
        text.replace('doc_to_text: "Riddle', 'doc_to_text: !function words.ask\nnot_it: "Riddle')
    )
    (base / "base.yaml").write_text(
        (base / "base.yaml").read_text().replace("not_it:", "doc_to_decontamination_query:")
    )
    (base / "middle.yaml").write_text("include: base.yaml\nfewshot_delimiter: ' / '\n")
    (own / "riddles.yaml").write_text(f"include: {base}/middle.yaml\ntask: riddles\n")
    (base / "words.py").write_text(
        "def ask(doc):\n    from herd_words import front\n\n    return front + doc['riddle']\n"
    )
    (path / "herd_words" / "__init__.py").write_text("from .inner.far import front\n")
    (path / "herd_words" / "inner" / "__init__.py").write_text("")
    (path / "herd_words" / "inner" / "far.py").write_text("front = 'So: '\n")
    monkeypatch.syspath_prepend(str(path))
    yield root, TaskFolders(None, (own,))
    for name in [name for name in sys.modules if name.split(".")[0] == "herd_words"]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("base/base.yaml", "Answer:", "So:"),
        ("base/middle.yaml", " / ", " | "),
        ("base/words.py", "front +", "front  +"),
        ("base/beside.py", "", "A = 1"),
        ("path/herd_words/__init__.py", "front", "front "),
        ("path/herd_words/inner/far.py", "So: ", "Well: "),
    ],
)
def test_all_that_a_registered_task_is_made_of_is_part_of_the_key(file, old, new, spread, ready, built):
    root, places = spread
    for _ in range(2):
        ready("riddles", folders=places)
    assert built == ["riddles", "riddles"]  # Once for each side, and nothing the second time.
    built.clear()
    before = (root / file).read_text() if (root / file).exists() else ""
    first = ready("riddles", folders=places)
    built.clear()
    (root / file).write_text(before.replace(old, new) if old else new)
    again = ready("riddles", folders=places)
    assert built
    # Outcomes are not to be kept under the old name where prompts or golds may have changed.
    needed = file not in ("base/beside.py", "base/base.yaml")  # There the query for decontamination was changed.
    assert (again.fingerprint("float32", "cpu") != first.fingerprint("float32", "cpu")) == needed


def test_code_that_no_task_needs_is_not_part_of_the_key(spread, ready, built):
    root, places = spread
    ready("riddles", folders=places)
    built.clear()
    (root / "path" / "foreign.py").write_text("A = 1\n")
    (root / "path" / "herd_words" / "unused.py").write_text("A = 1\n")
    ready("riddles", folders=places)
    assert built == []


@pytest.mark.parametrize("library", ["jinja2", "lm_eval", "datasets"])
def test_another_version_of_what_makes_prompts_is_noticed_and_of_python(library, ready, built, monkeypatch):
    real = preparing.importlib.metadata.version
    ready("arc_easy")
    for change in (
        (preparing.importlib.metadata, "version", lambda name: "0" if name == library else real(name)),
        (preparing.sys, "version_info", SimpleNamespace(major=3, minor=99)),
    ):
        built.clear()
        with monkeypatch.context() as patch:
            patch.setattr(*change)
            ready("arc_easy")
        assert built, change
    built.clear()
    ready("arc_easy")
    assert built == []


def test_another_tokenizer_is_noticed_and_one_without_a_digest_is_never_kept(
    ready, built, tokenizer_folder, tmp_path, monkeypatch
):
    ready("arc_easy")
    shutil.copytree(tokenizer_folder, tmp_path / "tokenizer")
    file = tmp_path / "tokenizer" / "tokenizer.json"
    file.write_text(file.read_text().replace('"add_prefix_space":false', '"add_prefix_space": true'))
    file.write_text(file.read_text().replace('"add_prefix_space": false', '"add_prefix_space": true'))
    built.clear()
    ready("arc_easy", tokenizer_folder=tmp_path / "tokenizer")
    assert built
    monkeypatch.setattr(preparing, "tokenizer_files", lambda folder: None)
    for _ in range(2):
        built.clear()
        ready("arc_easy")
        assert built


@pytest.mark.parametrize("damage", [b"", b"no safetensors at all, but long enough for a header"])
def test_a_damaged_file_is_built_anew_and_replaced(ready, built, tmp_path, caplog, damage):
    first = ready("arc_easy")
    (file,) = (tmp_path / "prepared").iterdir()
    file.write_bytes(damage)
    built.clear()
    with caplog.at_level(logging.WARNING):
        same(ready("arc_easy"), first)
    assert built and "built anew" in caplog.text
    built.clear()
    same(ready("arc_easy"), first)
    assert built == []


def test_a_folder_that_cannot_be_written_costs_nothing_else(ready, tmp_path, caplog):
    (tmp_path / "prepared").write_text("a file where the folder should be")
    assert ready("arc_easy").content.documents == 14
    assert "built anew next time" in caplog.text


def test_the_least_recently_used_files_make_room(ready, tmp_path):
    folder = tmp_path / "prepared"
    ready("arc_easy")
    (oldest,) = folder.iterdir()
    os.utime(oldest, (1, 1))
    ready("arc_challenge")
    size = sum(file.stat().st_size for file in folder.iterdir())
    PlanCache(folder, max_bytes=size - 1)._make_room()
    assert not oldest.exists() and len(list(folder.iterdir())) == 1


def test_nothing_half_written_stays(ready, tmp_path, monkeypatch):
    def full(file, columns, metadata):
        file.write(b"half")
        raise OSError(28, "no space")

    monkeypatch.setattr(module, "_write_columns", full)
    assert ready("arc_easy").content.documents == 14
    assert list((tmp_path / "prepared").iterdir()) == []


def test_a_file_is_what_the_library_of_its_format_reads(ready, tmp_path):
    trees = [document.tree for document in ready("arc_easy", num_fewshot=1).documents]
    (file,) = (tmp_path / "prepared").iterdir()
    found = load_file(file)
    np.testing.assert_array_equal(found["tokens"], np.concatenate([tree.tokens for tree in trees]))
    np.testing.assert_array_equal(found["entry_row.ends"], np.cumsum([len(tree.entry_row) for tree in trees]))
    assert found["lengths"].dtype == np.float64 and found["right"].dtype == np.int32
