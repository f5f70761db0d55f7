import random
import shutil

import numpy as np
import pytest
import torch

from core.errors import MissingCheckpointError, TaskError
from core.objective import TaskSpec
from evaluation import prepare as module
from evaluation.catalog import LOCAL_TASKS, FileTask, TaskFolders, configuration, load_task
from evaluation.prepare import build_requests, prepare
from evaluation.trees import chains

#: sha256 over all prompts of the fixture's documents: an upgrade of the harness, `datasets` or Jinja must not change one.
GOLDEN = {
    ("arc_challenge", 0): "343c9e7713856138",
    ("arc_challenge", 2): "0e69e170cb2ffa17",
    ("arc_easy", 0): "726b577d33d457c2",
    ("arc_easy", 2): "8fd50f03138b2cf0",
    ("hellaswag", 0): "5f44cccb62fd388a",
    ("hellaswag", 2): "bdcaaf7e136a9626",
    ("winogrande", 0): "f1c2078640ac67cb",
    ("winogrande", 2): "b7bd5c2966cb01a1",
}


@pytest.fixture
def ready(folders, tokenizer_folder):
    """Prepares one task: `ready("arc_easy", num_fewshot=2)`."""

    def make(name, *, max_length=512, add_bos=False, folders=folders, **spec):
        specs = [TaskSpec(task=name, **spec)]
        return prepare(specs, tokenizer_folder, folders, max_length=max_length, add_bos=add_bos).tasks[name]

    return make


@pytest.mark.parametrize("shots", [0, 2])
@pytest.mark.parametrize("name", LOCAL_TASKS)
def test_the_prompts_of_the_stock_tasks_are_these(name, shots, ready):
    assert ready(name, num_fewshot=shots).prompts_digest[:16] == GOLDEN[name, shots]


@pytest.mark.parametrize("shots", [0, 2])
def test_prompts_are_those_of_a_run_of_the_harness(shots, stock, model, folders):
    run = stock(model, [*LOCAL_TASKS, "riddles"], shots)
    for name in LOCAL_TASKS:
        assert build_requests(load_task(name, folders, num_fewshot=shots)) == run.arguments(name)
    heldout = load_task("riddles", folders, num_fewshot=shots, split="heldout")
    assert build_requests(heldout) == run.arguments("riddles")


def test_prompts_of_the_search_side_are_those_of_the_harness_on_that_split(stock, model, folders):
    run = stock(model, ["riddles"], 2, split="search")
    assert build_requests(load_task("riddles", folders, num_fewshot=2, split="search")) == run.arguments("riddles")


@pytest.mark.parametrize("name", LOCAL_TASKS)
def test_first_examples_are_those_of_the_harness_own_sampler(name, folders):
    own = FileTask(config={**configuration(name, folders), "fewshot_config": {"sampler": "first_n"}})
    own.set_config("num_fewshot", 2)
    task = load_task(name, folders, num_fewshot=2, sampler="first_n")
    assert build_requests(task) == build_requests(own) != build_requests(load_task(name, folders, num_fewshot=2))


def test_first_examples_are_the_same_for_all_and_no_other_content_or_fingerprint(folders, tokenizer_folder):
    specs = [TaskSpec(task="arc_easy", num_fewshot=2)]
    drawn, first = (
        prepare(specs, tokenizer_folder, folders, max_length=512, sampler=sampler).tasks["arc_easy"]
        for sampler in ("default", "first_n")
    )
    assert drawn.content == first.content
    assert drawn.fingerprint("float32", "cpu") != first.fingerprint("float32", "cpu")
    assert len({document.tree.tokens[:60].tobytes() for document in first.documents}) == 1
    assert len({document.tree.tokens[:60].tobytes() for document in drawn.documents}) > 1


def test_without_examples_the_sampler_does_not_matter(ready, folders, tokenizer_folder):
    first = prepare([TaskSpec(task="arc_easy")], tokenizer_folder, folders, max_length=512, sampler="first_n")
    assert first.tasks["arc_easy"].fingerprint("float32", "cpu") == ready("arc_easy").fingerprint("float32", "cpu")


def test_building_twice_gives_the_same_few_shot_examples(folders):
    task = load_task("hellaswag", folders, num_fewshot=2)
    first = build_requests(task)
    assert build_requests(task) == first
    assert len({pairs[0][0].rsplit("\n\n", 1)[0] for pairs in first}) > 1


def test_documents_hold_the_encoded_requests_of_both_sides_in_canonical_order(ready, folders, tokenizer):
    task = ready("riddles")
    pairs = [p for side in ("search", "heldout") for p in build_requests(load_task("riddles", folders, split=side))]
    assert len(task.documents) == task.content.documents == 15
    for document, requests in zip(task.documents, pairs, strict=True):
        texts = [tokenizer.decode([*c.tokens.tolist(), int(c.entry_target[-1])]) for c in chains(document.tree)]
        assert texts == [context + continuation for context, continuation in requests]


def test_a_prompt_longer_than_the_window_is_cut_on_the_left(ready):
    whole, cut = ready("arc_easy", num_fewshot=2), ready("arc_easy", num_fewshot=2, max_length=30)
    for a, b in zip(whole.documents, cut.documents, strict=True):
        for long, short in zip(chains(a.tree), chains(b.tree), strict=True):
            assert long.tokens.tolist()[-30:] == short.tokens.tolist()


def test_without_a_length_the_model_s_own_is_taken(tokenizer_folder, folders, make_model, tmp_path):
    shutil.copytree(tokenizer_folder, tmp_path / "model")
    make_model(max_position_embeddings=77).config.save_pretrained(tmp_path / "model")
    task = prepare([TaskSpec(task="winogrande")], tmp_path / "model", folders, max_length=None).tasks["winogrande"]
    assert task.max_length == 77


@pytest.mark.parametrize(("model_type", "added"), [("gemma", True), ("llama", False)])
def test_a_gemma_gets_its_special_tokens_unasked_as_in_the_harness(
    model_type, added, tokenizer_folder, folders, tmp_path
):
    shutil.copytree(tokenizer_folder, tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text(f'{{"model_type": "{model_type}", "max_position_embeddings": 99}}')
    task = prepare([TaskSpec(task="winogrande")], tmp_path / "model", folders, max_length=None).tasks["winogrande"]
    assert (task.add_bos, task.max_length) == (added, 99)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path, folders):
    with pytest.raises(MissingCheckpointError, match="holds no usable tokenizer"):
        prepare([TaskSpec(task="winogrande")], tmp_path, folders, max_length=512)


def test_the_largest_token_is_known(ready, tokenizer):
    task = ready("winogrande")
    everything = [t for d in task.documents for t in (*d.tree.tokens.tolist(), *d.tree.entry_target.tolist())]
    assert task.largest_token == max(everything) < len(tokenizer)


def test_a_continuation_that_cannot_fit_is_an_error_of_the_task(ready):
    with pytest.raises(TaskError, match="task 'arc_easy': a continuation must have 1 to 2 tokens"):
        ready("arc_easy", max_length=2)


def test_more_shots_than_examples_is_an_error_of_the_task(ready):
    assert ready("arc_easy", num_fewshot=8).spec.num_fewshot == 8
    with pytest.raises(TaskError, match="'arc_easy' with 9 shots cannot be built"):
        ready("arc_easy", num_fewshot=9)


def test_a_metric_that_is_not_reported_is_an_error_of_the_task(ready):
    with pytest.raises(TaskError, match="does not report 'acc_norm'"):
        ready("winogrande", metric="acc_norm")


def test_global_random_states_are_left_alone(ready):
    def states():
        return random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()

    before = states()
    ready("hellaswag", num_fewshot=2)
    assert states() == before


def test_the_fingerprint_covers_all_that_shapes_an_outcome(ready, folders, tmp_path, monkeypatch):
    base = ready("arc_easy")
    prints = {
        "base": base.fingerprint("float32", "cpu"),
        "dtype": base.fingerprint("bfloat16", "cpu"),
        "device": base.fingerprint("float32", "cuda"),
        "metric": ready("arc_easy", metric="acc").fingerprint("float32", "cpu"),
        "shots": ready("arc_easy", num_fewshot=1).fingerprint("float32", "cpu"),
        "length": ready("arc_easy", max_length=300).fingerprint("float32", "cpu"),
        "bos": ready("arc_easy", add_bos=True).fingerprint("float32", "cpu"),
        "task": ready("arc_challenge").fingerprint("float32", "cpu"),
    }
    monkeypatch.setattr(module.importlib.metadata, "version", lambda name: "0.0")
    prints["versions"] = base.fingerprint("float32", "cpu")
    assert len(set(prints.values())) == len(prints)


def test_the_fingerprint_covers_the_few_shot_examples_but_not_the_weight_or_the_place(ready, folders, tmp_path):
    shutil.copytree(folders.datasets, tmp_path / "d")
    moved = TaskFolders(tmp_path / "d")
    expected = ready("arc_easy", num_fewshot=1).fingerprint("float32", "cpu")
    assert ready("arc_easy", num_fewshot=1, weight=3.0, folders=moved).fingerprint("float32", "cpu") == expected
    shutil.copy(tmp_path / "d" / "arc_challenge" / "train.parquet", tmp_path / "d" / "arc_easy" / "train.parquet")
    changed = ready("arc_easy", num_fewshot=1, folders=moved)
    assert changed.content.content_digest == ready("arc_easy").content.content_digest
    assert changed.fingerprint("float32", "cpu") != expected


def test_preparing_prints_no_progress_bars(ready, capfd):
    ready("hellaswag", num_fewshot=1)
    assert capfd.readouterr().err == ""
