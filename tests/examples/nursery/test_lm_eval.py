"""The grown tasks under lm-eval itself: same strings as the stock tasks, same numbers as the nursery's scorer."""

import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager, get_task_dict
from lm_eval.tasks.hellaswag.utils import process_docs
from lm_eval.tasks.winogrande import preprocess_winogrande as stock_winogrande
from tokenizers import Tokenizer

from examples.nursery.scoring import Exam


@pytest.fixture(scope="module")
def manager(smoke_family) -> TaskManager:
    return TaskManager(include_path=str(smoke_family.tasks), include_defaults=False)


@pytest.fixture(scope="module")
def tasks(smoke_family, manager):
    return get_task_dict(list(smoke_family.task_names.values()), manager)


def test_lm_eval_finds_exactly_the_three_tasks(smoke_family, manager):
    assert sorted(manager.all_tasks) == sorted(smoke_family.task_names.values())


def test_winogrande_prompts_are_those_of_the_stock_functions(tasks):
    task = tasks["nursery_winogrande"]
    for doc in task.test_docs():
        assert task.doc_to_text(doc) == stock_winogrande.doc_to_text(doc)
        assert task.doc_to_target(doc) == stock_winogrande.doc_to_target(doc)
        assert task.doc_to_choice(doc) == stock_winogrande.doc_to_choice(doc)


def test_hellaswag_prompts_are_those_of_the_stock_preprocessing(smoke_family, tasks):
    task = tasks["nursery_hellaswag"]
    path = smoke_family.tasks / "nursery_hellaswag" / "test.parquet"
    stock = process_docs(Dataset.from_list(pq.read_table(path).to_pylist()))
    for doc, processed in zip(task.test_docs(), stock, strict=True):
        assert task.doc_to_text(doc) == processed["query"]
        assert task.doc_to_choice(doc) == processed["choices"]
        assert task.doc_to_target(doc) == processed["gold"]


def test_arc_prompts_are_those_of_the_stock_templates(tasks):
    task = tasks["nursery_arc"]
    for doc in task.test_docs():
        assert task.doc_to_text(doc) == f"Question: {doc['question']}\nAnswer:"
        assert task.doc_to_choice(doc) == doc["choices"]["text"]
        assert task.doc_to_target(doc) == doc["choices"]["label"].index(doc["answerKey"])


def test_stock_lm_eval_gives_the_accuracy_of_our_scorer_item_by_item(smoke_family, manager, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = smoke_family.specialists["hella"]
    model = HFLM(pretrained=str(folder), device="cpu", batch_size=16, dtype="float32")
    names = smoke_family.task_names
    results = simple_evaluate(
        model,
        tasks=list(names.values()),
        task_manager=manager,
        limit=20,
        bootstrap_iters=0,
    )
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for skill, name in names.items():
        exam = Exam.read(smoke_family.tasks, skill, "test", tokenizer, limit=20)
        samples = sorted(results["samples"][name], key=lambda sample: sample["doc_id"])
        assert tuple(bool(sample["acc"]) for sample in samples) == exam.right(model.model)
        assert results["results"][name]["acc,none"] == pytest.approx(exam.accuracy(model.model) / 100)
        likelihoods = [answer[0] for sample in samples for answer in sample["filtered_resps"]]
        assert likelihoods == pytest.approx(exam.log_likelihoods(model.model).tolist(), rel=1e-4)
        assert results["versions"][name] == 1.0
    for name in ("nursery_arc", "nursery_hellaswag"):  # all choices of a question are equally long
        assert results["results"][name]["acc_norm,none"] == results["results"][name]["acc,none"]
