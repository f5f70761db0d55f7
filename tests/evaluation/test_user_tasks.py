"""Tasks as their authors write them, in a folder: ours against the stock harness, which loads the same folder by itself."""

import json
import random

import lm_eval
import numpy as np
import pytest
import torch
from lm_eval.api.task import ConfigurableTask
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from core.errors import TaskError
from core.objective import TaskSpec
from evaluation import catalog
from evaluation.catalog import LOCAL_TASKS, FileTask, TaskFolders, load_task
from evaluation.lm import HuarizoLM
from evaluation.prepare import build_requests, prepare, requests_of
from evaluation.randomness import Randomness
from evaluation.scorer import Scorer
from evaluation.units import load_unit
from evaluation.whole import run

COATS = ["black", "red", "grey", "white"]
CODE = """
import random
import numpy as np
import torch
from lm_eval.api.samplers import ContextSampler

PRIVATE = random.Random(42)


def text(doc):
    return f"Herd of {doc['herd']}, which coat?"


def gold(doc):
    return doc["coat"]


def choices(doc):
    return [f"a {coat} coat" for coat in doc["coats"]]


def samples():
    return [{"herd": f"Sample {n}", "coats": ["red", "grey"], "coat": n % 2, "right": [0]} for n in range(4)]


class Last(ContextSampler):
    def sample(self, n):
        return self.docs[-n:]


def _turned(doc, order):
    return {"coats": [doc["coats"][place] for place in order], "coat": order.index(doc["coat"])}


def mixed(dataset):
    def turn(doc):
        order = list(range(len(doc["coats"])))
        random.shuffle(order)
        order = [order[place] for place in np.random.permutation(len(order))]
        order = [order[place] for place in torch.randperm(len(order)).tolist()]
        return _turned(doc, order)

    return dataset.map(turn)


def reordered(dataset):
    order = list(range(len(dataset)))
    random.shuffle(order)
    np.random.shuffle(order)
    return dataset.select(order)


def shuffled_by_the_library(dataset):
    return dataset.shuffle()


def privately(dataset):
    def turn(doc):
        order = list(range(len(doc["coats"])))
        PRIVATE.shuffle(order)
        return _turned(doc, order)

    return dataset.map(turn)


def seeded_inside(dataset):
    random.seed(7)
    order = list(range(len(dataset)))
    random.shuffle(order)
    return dataset.select(order)


def chatty(doc):
    return f"{random.choice(['Well', 'So', 'Now'])}: {doc['herd']}?"
"""
#: The lines of a task's YAML, which those of `TASKS` override; what is None is left out.
BASE = {
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"train": "train.jsonl", "test": "test.jsonl"}},
    "output_type": "multiple_choice",
    "training_split": "train",
    "test_split": "test",
    "doc_to_text": '"Herd {{herd}}, coat?"',
    "doc_to_choice": '"{{coats}}"',
    "doc_to_target": "coat",
    "metric_list": "[{metric: acc, aggregation: mean, higher_is_better: true}, "
    "{metric: acc_norm, aggregation: mean, higher_is_better: true}]",
}
MUTUAL = BASE["metric_list"][:-1] + ", {metric: acc_mutual_info, aggregation: mean, higher_is_better: true}]"
MEASURED = "[{metric: acc, aggregation: mean, higher_is_better: true}, {metric: exact_match, aggregation: mean, higher_is_better: true}, "
MEASURED += "{metric: brier_score, aggregation: brier_score, higher_is_better: false}]"
#: Documents that are asked for and judged by different readings of the data: all must have as many choices.
FIXED = {"doc_to_choice": "[black, red, grey, white]", "doc_to_target": '"{{coats[coat]}}"'}
TASKS = {
    "columns": {"doc_to_choice": "coats", "doc_to_text": "herd"},
    "functions": {"doc_to_text": "!function code.text", "doc_to_choice": "!function code.choices",
                  "doc_to_target": "!function code.gold"},
    "fixed_choices": FIXED,
    "mapped_choices": {"doc_to_choice": "{a: black, b: red, c: grey}", "doc_to_target": "1"},
    "digits": {"doc_to_target": '"{{coat}}"', "target_delimiter": '": "', "fewshot_delimiter": '"\\n--\\n"',
               "description": '"Tell coats.\\n\\n"'},
    "several_right": {"doc_to_target": "right"},
    "several_right_as_text": {"doc_to_target": '"{{right}}"'},
    "options_in_the_question": {"doc_to_text": "coat", "doc_to_target": '"as {{herd}} has."',
                                "doc_to_choice": '"{{coats}}"', "target_delimiter": '" "'},
    "first_examples": {"fewshot_config": "{sampler: first_n}", "num_fewshot": "2"},
    "examples_given": {"fewshot_config": "{samples: !function code.samples}", "num_fewshot": "3"},
    "sampler_of_its_own": {"fewshot_config": "{sampler: !function code.Last}", "num_fewshot": "2"},
    "examples_of_the_questions": {"fewshot_split": "test", "num_fewshot": "2"},
    "mutual_information": {"metric_list": MUTUAL},
    "other_measures": FIXED | {"metric_list": MEASURED},
    "wrong_golds": {"doc_to_target": "strange"},
    "wrong_texts": {"doc_to_target": "called"},
    "mixed": {"process_docs": "!function code.mixed", "num_fewshot": "1"},
    "privately": FIXED | {"process_docs": "!function code.privately", "doc_to_text": '"{{coats}} {{herd}}?"'},
    "reordered": FIXED | {"process_docs": "!function code.reordered", "num_fewshot": "1"},
    "shuffled_by_the_library": FIXED | {"process_docs": "!function code.shuffled_by_the_library"},
    "seeded_inside": {"process_docs": "!function code.seeded_inside", "num_fewshot": "1"},
    "chatty": {"doc_to_text": "!function code.chatty", "num_fewshot": "2"},
    "words": {"output_type": "loglikelihood", "doc_to_choice": None, "doc_to_target": '"{{coats[coat]}}"',
              "metric_list": "[{metric: perplexity, aggregation: perplexity, higher_is_better: false}, "
              "{metric: acc, aggregation: mean, higher_is_better: true}]"},
    "rolling": {"output_type": "loglikelihood_rolling", "doc_to_choice": None, "doc_to_text": '""',
                "doc_to_target": '"{{herd}} has {{coats}}."', "process_docs": "!function code.reordered",
                "metric_list": "[{metric: word_perplexity}, {metric: bits_per_byte}]"},
}  # fmt: skip
#: Golds that name no choice, beside ones that do.
STRANGE = [0, 4, -100, -1, 1, 99, 2, -3]


def _row(draw, number):
    coats = draw.sample(COATS, draw.choice([3, 4, 4]))
    place = draw.randrange(len(coats))
    called = [coats[place], "none of them", str(place)][number % 3]
    row = {"herd": f"{draw.choice(['Nalto', 'Brela', 'Dusix'])} {number}", "coats": coats, "coat": place}
    return row | {"right": draw.choice([[0], [0, 2], [place, 9]]), "strange": STRANGE[number % 8], "called": called}


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A folder with every one of `TASKS`, a group of two of them, and their documents."""
    folder = tmp_path_factory.mktemp("own")
    draw = random.Random(3)
    for split, count in {"train": 9, "test": 11}.items():
        rows = [_row(draw, number) for number in range(count)]
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "code.py").write_text(CODE)
    for name, changes in TASKS.items():
        lines = {key: value for key, value in (BASE | changes).items() if value is not None}
        text = json.dumps(lines.pop("dataset_kwargs"))
        lines = [f"task: {name}", f"dataset_kwargs: {text}", *(f"{key}: {value}" for key, value in lines.items())]
        (folder / f"{name}.yaml").write_text("\n".join(lines) + "\n")
    (folder / "pair.yaml").write_text("group: pair\ntask: [reordered, mixed]\n")
    return folder


@pytest.fixture
def harness(own, evaluate, monkeypatch, tmp_path):
    """The oracle: `simple_evaluate` of a name by the harness's own task manager, on a cache that nobody used before."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(own)  # It reads relative file names from where the process stands.

    def found(model, tokenizer, name, **options):
        manager = TaskManager("ERROR", include_path=str(own), include_defaults=False)
        lm = HFLM(model, tokenizer=tokenizer, batch_size=2)
        return lm_eval.simple_evaluate(lm, tasks=[name], task_manager=manager, verbosity="ERROR", **options)

    return found


def said(samples):
    """Of every document, what it was, how it was asked for and how it was judged; log-likelihoods apart."""
    rows = sorted(samples, key=lambda row: row["doc_id"])
    return [{key: value for key, value in row.items() if "resps" not in key} for row in rows]


def answers(samples):
    return [
        response[0] if isinstance(response, tuple | list) else response
        for row in sorted(samples, key=lambda row: row["doc_id"])
        for responses in row["resps"]
        for response in responses
    ]


def same(ours, theirs, near):
    assert ours["samples"].keys() == theirs["samples"].keys() and ours["results"].keys() == theirs["results"].keys()
    for name, rows in theirs["samples"].items():
        plain = [{k: v for k, v in row.items() if not _measured(v)} for row in said(rows)]
        assert [{k: v for k, v in row.items() if not _measured(v)} for row in said(ours["samples"][name])] == plain
        assert all(map(near, answers(ours["samples"][name]), answers(rows)))
    for name, entry in theirs["results"].items():
        for key, value in entry.items():
            expected = pytest.approx(value, rel=1e-4) if isinstance(value, float) else value
            assert ours["results"][name][key] == expected, (name, key)


def _measured(value):
    """Whether a sample's entry is made of log-likelihoods, which agree but for their last bits."""
    return isinstance(value, tuple) or (isinstance(value, float) and value not in (0.0, 1.0))


@pytest.mark.parametrize("name", [*TASKS, "pair"])
def test_a_whole_task_of_a_folder_is_the_harness_s_run_of_it(name, own, harness, model, tokenizer, near):
    theirs = harness(model, tokenizer, name)
    unit = load_unit(name, TaskFolders(None, (own,)), num_fewshot=None)
    ours = run(HuarizoLM(model, tokenizer), unit, samples=True)
    same(ours.found, theirs, near)


#: What is judged document by document, with the metrics of each.
SINGLE = [
    name for name in TASKS if name not in ("words", "rolling", "privately", "reordered", "shuffled_by_the_library")
]


@pytest.mark.parametrize("name", SINGLE)
def test_a_task_of_a_folder_is_judged_document_by_document_as_by_the_harness(
    name, own, harness, model, tokenizer, tokenizer_folder
):
    shots = int(TASKS[name].get("num_fewshot", 0))
    options = {"num_fewshot": shots} if shots else {}
    theirs = said(harness(model, tokenizer, name, **options)["samples"][name])
    for metric in {"acc", "acc_norm"} & theirs[0].keys():
        spec = TaskSpec(task=name, metric=metric, num_fewshot=shots)
        prepared = prepare([spec], tokenizer_folder, TaskFolders(None, (own,)), max_length=None)
        scorer = Scorer(prepared, device=torch.device("cpu"), dtype=torch.float32)
        found = scorer.score(model, name, range(11))
        assert list(found.correct) == [row[metric] for row in theirs], metric
        assert np.isfinite(found.margins).all()


@pytest.mark.parametrize("name", ["privately", "reordered", "shuffled_by_the_library"])
def test_documents_that_change_at_every_reading_are_refused_where_each_is_judged_alone(name, own, tokenizer_folder):
    with pytest.raises(TaskError, match=r"asks for some and judges by others.*huarizo evaluate MODEL --tasks"):
        prepare([TaskSpec(task=name)], tokenizer_folder, TaskFolders(None, (own,)), max_length=None)


@pytest.mark.parametrize("name", ["mixed", "seeded_inside", "chatty"])
def test_what_a_task_draws_depends_on_no_draw_before_and_disturbs_none_after(name, own, tokenizer_folder):
    places = TaskFolders(None, (own,))
    prints = set()
    for seed in (1, 2):
        random.seed(seed), np.random.seed(seed), torch.manual_seed(seed)
        before = Randomness.now()
        prepared = prepare([TaskSpec(task=name, num_fewshot=1)], tokenizer_folder, places, max_length=None).tasks[name]
        load_unit(name, places, num_fewshot=1)
        assert before.same(Randomness.now())
        prints.add((prepared.prompts_digest, prepared.content.content_digest, prepared.content.search))
    assert len(prints) == 1


def test_the_unconditional_requests_of_mutual_information_are_not_read(own, tokenizer_folder):
    places = TaskFolders(None, (own,))
    plain, mutual = (
        prepare([TaskSpec(task=name)], tokenizer_folder, places, max_length=None).tasks[name]
        for name in ("columns", "mutual_information")
    )
    assert [d.tree.requests for d in mutual.documents] == [d.tree.requests for d in plain.documents]
    assert mutual.content.mean_choices == plain.content.mean_choices


def test_a_choice_without_a_request_of_its_own_is_a_task_error(own, tokenizer_folder, monkeypatch):
    real = FileTask.construct_requests
    monkeypatch.setattr(FileTask, "construct_requests", lambda *args, **kwargs: real(*args, **kwargs)[:-1])
    with pytest.raises(TaskError, match=r"one request, but document 0 of task 'columns' has \d choices and"):
        prepare([TaskSpec(task="columns")], tokenizer_folder, TaskFolders(None, (own,)), max_length=None)


@pytest.mark.parametrize("shots", [0, 2])
@pytest.mark.parametrize("name", LOCAL_TASKS)
def test_a_stock_task_over_local_files_is_what_the_harness_s_own_manager_makes_of_them(
    name, shots, folders, tmp_path, monkeypatch
):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    files = {file.stem: str(file) for file in (folders.datasets / name).glob("*.parquet")}
    data = f"dataset_path: parquet\ndataset_name: null\ndataset_kwargs: {json.dumps({'data_files': files})}\n"
    (tmp_path / "own.yaml").write_text(f"include: {catalog._stock()[name]}\ntask: {name}\n{data}")
    manager = TaskManager("ERROR", include_path=str(tmp_path), include_defaults=False)
    theirs = manager.load_task_or_group([name])[name]
    assert type(theirs) is ConfigurableTask
    theirs.set_config("num_fewshot", shots)
    theirs.set_fewshot_seed(1234)
    theirs.build_all_requests()
    ours = load_task(name, folders, num_fewshot=shots)
    assert list(ours.task_docs) == list(theirs.task_docs)
    assert build_requests(ours) == requests_of(theirs)
    assert ours.aggregation() == theirs.aggregation() and ours.VERSION == theirs.VERSION
