"""Whole evaluations of a tiny random Llama: the numbers are the stock harness's, and each says where it comes from."""

import json
import random
import shutil
import socket
import sys
from pathlib import Path

import lm_eval
import lm_eval.evaluator
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from lm_eval.models.huggingface import HFLM
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from core.checkpoint import weights_digest
from core.errors import CheckpointError
from core.objective import TaskSpec
from core.protocols import PROTOCOLS
from evaluation.catalog import TaskFolders
from evaluation.prepare import prepare
from evaluation.units import load_unit
from workers.runner import evaluate

HERDS = ["nalto", "brela", "dusix", "vamba", "keromi", "zutor"]
COATS = ["black", "red", "grey", "white"]
DATA = "dataset_path: json\ndataset_kwargs: {data_files: {train: herds.jsonl, test: herds.jsonl}}\ntest_split: test\n"
TASKS = {
    "coats": DATA
    + """
group: herding
output_type: multiple_choice
training_split: train
doc_to_text: "What coat has {{herd}}?"
doc_to_target: "{{coat}}"
doc_to_choice: ["black", "red", "grey", "white"]
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
metadata: {version: 2.0}
""",
    "pages": DATA
    + """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{herd}} is {{coat}}, and {{herd}} is content."
metric_list:
  - {metric: word_perplexity, aggregation: weighted_perplexity, higher_is_better: false}
  - {metric: bits_per_byte, aggregation: bits_per_byte, higher_is_better: false}
""",
    "sayings": DATA
    + """
output_type: generate_until
training_split: train
num_fewshot: 2
doc_to_text: "{{herd}} is"
doc_to_target: "{{coat}}"
generation_kwargs: {until: ["."], max_gen_toks: 4, do_sample: false}
filter_list:
  - {name: first, filter: [{function: regex, regex_pattern: "(\\\\w)"}, {function: take_first}]}
  - {name: whole, filter: [{function: take_first}]}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
""",
    "endings": DATA
    + """
output_type: loglikelihood
doc_to_text: "{{herd}} is"
doc_to_target: "{{coat}}"
metric_list:
  - {metric: perplexity, aggregation: perplexity, higher_is_better: false}
  - {metric: acc, aggregation: mean, higher_is_better: true}
""",
}
KINDS = {"coats": "acc_norm", "pages": "bits_per_byte", "sayings": "exact_match", "endings": "perplexity"}


def arc(draw):
    choices = draw.sample(COATS, 4)
    question = f"Which coat has {draw.choice(HERDS)}, number {draw.randrange(999)}?"
    return {"id": "q", "question": question, "choices": {"text": choices, "label": list("ABCD")}, "answerKey": "B"}


def winogrande(draw):
    sentence = f"{draw.choice(HERDS)} pleased {draw.choice(HERDS)} because _ was {draw.choice(COATS)}."
    return {"sentence": sentence, "option1": "it", "option2": "she", "answer": draw.choice("12")}


def hellaswag(draw):
    context = f"{draw.choice(HERDS)} ran. [title] Then"
    row = {"ind": 1, "activity_label": "Herding", "ctx_a": context, "ctx_b": "next it", "ctx": context + " next it"}
    return row | {"endings": draw.sample(COATS, 4), "source_id": "", "split": "val", "split_type": "", "label": "2"}


LOCAL = {"arc_challenge": (arc, "test", 30), "winogrande": (winogrande, "validation", 12)}
LOCAL |= {"hellaswag": (hellaswag, "validation", 14)}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A model, tasks of every kind in a folder of the user's, and documents for three stock tasks."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("world")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Tokenizer(
        models.BPE(vocab={token: index for index, token in enumerate(["<s>", "</s>", *alphabet])}, merges=[])
    )
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>").save_pretrained(root / "llama")
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    shape |= {"vocab_size": 258, "max_position_embeddings": 128, "initializer_range": 0.3, "bos_token_id": 0}
    with torch.random.fork_rng():
        torch.manual_seed(3)
        LlamaForCausalLM(LlamaConfig(**shape, eos_token_id=1)).save_pretrained(root / "llama")
    (root / "tasks").mkdir()
    draw = random.Random(5)
    rows = [{"herd": f"{draw.choice(HERDS)} {n}", "coat": draw.choice(COATS)} for n in range(11)]
    (root / "tasks" / "herds.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for name, text in TASKS.items():
        (root / "tasks" / f"{name}.yaml").write_text(f"task: {name}\n{text}")
    for name, (maker, split, examples) in LOCAL.items():
        (root / "data" / name).mkdir(parents=True)
        for part, count in {"train": examples, "validation": 3, split: 4}.items():
            table = pa.Table.from_pylist([maker(draw) for _ in range(count)])
            pq.write_table(table, root / "data" / name / f"{part}.parquet")
    return root


@pytest.fixture
def here(world, tmp_path, monkeypatch):
    """A working folder, with the settings that a process of the verb gets."""
    for name, value in {
        "HUARIZO_MODEL_ROOTS": world, "HUARIZO_TASK_FOLDERS": world / "tasks", "HUARIZO_DATASETS": world / "data",
        "HUARIZO_THREADS": 1, "HF_HUB_OFFLINE": 1,
    }.items():  # fmt: skip
        monkeypatch.setenv(name, str(value))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(here, monkeypatch, capsys):
    """Run the verb: its exit status, its last event and the ones before."""

    def call(*words, model="local:llama"):
        monkeypatch.setattr(sys, "argv", ["evaluate", model, "--device", "cpu", *words])
        status = evaluate.main()
        *steps, end = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
        return status, end, steps

    return call


@pytest.fixture
def stock(world, here, monkeypatch):
    """The oracle: the harness's own model over the harness's own tasks."""
    monkeypatch.setattr(HFLM, "get_model_info", lambda self: {})
    monkeypatch.setattr(lm_eval.evaluator, "add_env_info", lambda results: None)

    def results(units, **options):
        model = LlamaForCausalLM.from_pretrained(world / "llama", dtype=torch.float32)
        lm = HFLM(model, tokenizer=AutoTokenizer.from_pretrained(world / "llama"), batch_size=1)
        found = {}
        for unit in units:
            more = lm_eval.simple_evaluate(lm, tasks=[unit.name], task_manager=unit, verbosity="ERROR", **options)
            found |= more["results"]
        return found

    return results


def folders(world):
    return TaskFolders(world / "data", (world / "tasks",))


def same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, entry in theirs.items():
        assert ours[name] == {
            key: pytest.approx(value, rel=1e-5) if isinstance(value, float) else value for key, value in entry.items()
        }


def test_every_kind_of_task_gives_the_stock_harness_s_results(run, stock, world, here):
    status, end, steps = run("--tasks", ",".join(KINDS), "--output", "report.json")
    assert status == 0, end
    theirs = stock([load_unit(name, folders(world), num_fewshot=None) for name in KINDS])
    same(end["harness"]["results"], theirs)
    scores = {(score["task"], score["metric"], score["filter"]): score for score in end["scores"]}
    assert {("sayings", "exact_match", way) for way in ("first", "whole")} < scores.keys()
    for (task, metric, way), score in scores.items():
        assert score["value"] == pytest.approx(theirs[task][f"{metric},{way}"], rel=1e-5)
        assert (score["n"], score["documents"], score["tasks"]) == (11, 11, 0)
        assert score["num_fewshot"] == (2 if task == "sayings" else 0)
    assert len({score["fingerprint"] for score in end["scores"]}) == len(end["scores"]) == 8
    assert end["tasks"]["coats"]["version"] == 2.0
    assert end["model"]["weights_digest"] == weights_digest(world / "llama")
    assert (end["full"], end["macro"], end["protocol"]["name"], end["dtype"]) == (True, None, "search", "float32")
    assert end["items"] == 44 and end["items_per_second"] == pytest.approx(44 / end["scoring_seconds"])
    written = json.loads((here / "report.json").read_text())
    assert written == {k: v for k, v in end.items() if k not in ("event", "output")}
    assert steps[0]["doing"] == "coats: documents" and "44 of 44 requests" in [step["doing"][-17:] for step in steps]
    assert [step["done"] / step["total"] for step in steps[-2:]][-1] == 1.0


def test_in_half_precision_documents_that_come_out_otherwise_than_in_float32_are_counted(run, here):
    words = ("--tasks", "coats,endings,pages", "--log-samples")
    ends = {dtype: run(*words, dtype, "--dtype", dtype, "--check-precision", "7") for dtype in ("bfloat16", "float32")}
    read = {
        (dtype, task): [json.loads(line) for line in (here / dtype / f"{task}.jsonl").read_text().splitlines()][:7]
        for dtype in ends
        for task in ("coats", "endings")
    }

    def unlike(task, *names):
        both = zip(read["bfloat16", task], read["float32", task], strict=True)
        return sum(any(one[name] != other[name] for name in names) for one, other in both)

    (status, half, _), (_, exact, _) = ends.values()
    assert status == 0, half
    counted = {"coats": unlike("coats", "acc", "acc_norm"), "endings": unlike("endings", "acc"), "pages": 0}
    seen = half["precision"]
    assert {task: each["differing"] for task, each in seen["tasks"].items()} == counted
    assert (seen["items"], seen["differing"]) == (14, sum(counted.values()))
    assert f"in bfloat16, {seen['differing']} of 14 documents come out otherwise" in half["notes"][-1]
    assert "precision" not in exact


def test_a_multiple_choice_score_has_the_fingerprint_that_searches_keep_outcomes_under(run, world):
    status, end, _ = run("--tasks", "coats,arc_challenge", "--num-fewshot", "1")
    assert status == 0, end
    for task in ("coats", "arc_challenge"):
        for metric in ("acc", "acc_norm"):
            spec = TaskSpec(task=task, metric=metric, num_fewshot=1)
            prepared = prepare([spec], world / "llama", folders(world), max_length=None).tasks[task]
            (score,) = [s for s in end["scores"] if (s["task"], s["metric"]) == (task, metric)]
            assert score["fingerprint"] == prepared.fingerprint("float32", "cpu")
        assert end["tasks"][task]["prompts_digest"] == prepared.prompts_digest
        assert end["tasks"][task]["content_digest"] == prepared.content.content_digest


def test_the_core_protocol_runs_offline_with_its_shots_and_its_mean(run, stock, world, monkeypatch):
    theirs = stock(
        [load_unit(t.task, folders(world), num_fewshot=t.num_fewshot) for t in PROTOCOLS["open-llm-v1-core"].tasks]
    )

    def refuse(*_):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    status, end, _ = run("--protocol", "open-llm-v1-core")
    assert status == 0, end
    same(end["harness"]["results"], theirs)
    marked = {score["task"]: score for score in end["scores"] if score["in_macro"]}
    assert {task: (s["num_fewshot"], s["metric"]) for task, s in marked.items()} == {
        "arc_challenge": (25, "acc_norm"), "hellaswag": (10, "acc_norm"), "winogrande": (5, "acc"),
    }  # fmt: skip
    assert end["macro"]["value"] == pytest.approx(sum(s["value"] for s in marked.values()) / 3)
    assert end["macro"]["stderr"] == pytest.approx(sum(s["stderr"] ** 2 for s in marked.values()) ** 0.5 / 3)
    assert "Three of the six tasks" in end["notes"][0] and "another commit of the harness" in end["notes"][0]


def test_part_of_a_protocol_and_a_limit_have_no_mean_and_say_so(run):
    status, end, _ = run("--protocol", "open-llm-v1", "--tasks", "winogrande,arc_challenge", "--limit", "2")
    assert status == 0, end
    assert (end["full"], end["macro"], end["limit"]) == (False, None, 2)
    assert {score["n"] for score in end["scores"]} == {2} and {score["documents"] for score in end["scores"]} == {4}
    assert any("NOT A FULL SCORE" in note for note in end["notes"])
    assert any("only arc_challenge, winogrande of the protocol's 6 tasks" in note for note in end["notes"])


def test_the_same_first_examples_are_another_protocol_with_another_fingerprint(run, here):
    _, drawn, _ = run("--tasks", "coats", "--num-fewshot", "3")
    _, first, _ = run("--tasks", "coats", "--num-fewshot", "3", "--protocol", "search-fast", "--log-samples", "samples")
    assert (drawn["protocol"]["sampler"], first["protocol"]["sampler"]) == ("default", "first_n")
    assert drawn["scores"][0]["fingerprint"] != first["scores"][0]["fingerprint"]
    rows = [json.loads(line) for line in (here / "samples" / "coats.jsonl").read_text().splitlines()]
    beginnings = {row["arguments"][0][0].rsplit("\n\n", 1)[0] for row in rows if row["doc_id"] > 3}
    assert len(rows) == 11 and len(beginnings) == 1


def test_a_group_is_evaluated_with_its_tasks(run, stock, world, here):
    (world / "tasks" / "herd_group.yaml").write_text("group: herd_group\ntask: [coats, endings]\n")
    try:
        status, end, _ = run("--tasks", "herd_group", "--num-fewshot", "0")
    finally:
        (world / "tasks" / "herd_group.yaml").unlink()
    assert status == 0, end
    scores = {(score["task"], score["metric"]): score for score in end["scores"]}
    group = scores["herd_group", "acc"]
    members = [scores[name, "acc"]["value"] for name in ("coats", "endings")]
    assert group["value"] == pytest.approx(sum(members) / 2) and (group["n"], group["tasks"]) == (22, 2)
    assert group["fingerprint"] not in {score["fingerprint"] for score in end["scores"] if score is not group}


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--tasks", "sayngs"], "unknown_task", "did you mean 'sayings'"),
        (["--protocol", "serch", "--tasks", "coats"], "unknown_name", "did you mean 'search'"),
        (["--tasks", "arc_easy"], "bad_task", "arc_easy/test.parquet"),
        (["--tasks", "sayings", "--num-fewshot", "30"], "bad_task", "there are 11"),
        (["--tasks", "coats", "--device", "cuda:77"], "invalid_input", "no device 'cuda:77'"),
        (["--tasks", "coats", "--output", "nowhere/report.json"], "invalid_input", "existing folder"),
        (["--tasks", "coats", "--limit", "0"], "invalid_input", "1 or more"),
    ],
)
def test_what_cannot_be_is_said_before_weights_are_read(run, monkeypatch, words, code, message):
    monkeypatch.setattr(evaluate, "load_model", lambda *_: pytest.fail("weights were read"))
    status, end, _ = run(*words)
    assert status == 1
    assert (message in end["message"] and end["code"].startswith(code)) or code in end["code"], end


def test_a_task_of_the_hub_says_what_to_do_where_there_is_none(run, monkeypatch):
    monkeypatch.setattr("datasets.load_dataset", lambda **_: (_ for _ in ()).throw(ConnectionError("offline")))
    status, end, _ = run("--tasks", "gsm8k")
    assert status == 1 and "set HUARIZO_DATASETS" in end["message"] and "offline" in end["message"]


def test_documents_of_any_stock_task_may_be_local(run, world, tmp_path, monkeypatch):
    (tmp_path / "gsm8k").mkdir()
    rows = [{"question": f"What is {n} and 1?", "answer": f"It is one more.\n#### {n + 1}"} for n in range(9)]
    for split in ("train", "test"):
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "gsm8k" / f"{split}.parquet")
    monkeypatch.setenv("HUARIZO_DATASETS", str(tmp_path))
    status, end, _ = run("--protocol", "open-llm-v1", "--tasks", "gsm8k", "--limit", "1")
    assert status == 0, end
    assert [(s["filter"], s["in_macro"]) for s in end["scores"]] == [
        ("strict-match", True),
        ("flexible-extract", False),
    ]
    assert end["scores"][0]["num_fewshot"] == 5


@pytest.mark.parametrize(
    ("model", "code", "message"),
    [("nowhere", "missing_checkpoint", "nowhere"), ("adapter", "bad_checkpoint", "merge it")],
)
def test_a_model_that_cannot_be_evaluated_is_refused(run, here, model, code, message):
    (here / "adapter").mkdir()
    (here / "adapter" / "adapter_config.json").write_text("{}")
    status, end, _ = run("--tasks", "coats", model=model)
    assert (status, end["code"]) == (1, code) and message in end["message"]


def test_weights_that_are_not_finite_are_named(run, world, here):
    shutil.copytree(world / "llama", here / "broken")
    tensors = load_file(here / "broken" / "model.safetensors")
    tensors["model.norm.weight"][3] = float("nan")
    save_file(tensors, here / "broken" / "model.safetensors", metadata={"format": "pt"})
    status, end, _ = run("--tasks", "coats", model="broken")
    assert (status, end["code"]) == (1, "non_finite_checkpoint") and "model.norm.weight" in end["message"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("model.layers.1.mlp.up_proj.weight"), "lacks .*model.layers.1.mlp.up_proj.weight"),
        (lambda t: t.update({"model.layers.7.mlp.up_proj.weight": torch.zeros(48, 32)}), "also holds .*layers.7.mlp"),
        (lambda t: t.update({"extra.weight": torch.zeros(3)}), "also holds .*'extra.weight'"),
        (lambda t: t.update({"model.norm.weight": torch.ones(16)}), "has other shapes for .*model.norm.weight"),
    ],
    ids=["missing", "a_layer_too_many", "foreign", "another_shape"],
)
def test_weights_that_are_not_those_of_the_configuration_are_refused(run, world, here, change, message):
    shutil.copytree(world / "llama", here / "odd")
    tensors = load_file(here / "odd" / "model.safetensors")
    change(tensors)
    save_file(tensors, here / "odd" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=message):
        evaluate.load_model(here / "odd", torch.device("cpu"), "auto")
    status, end, _ = run("--tasks", "coats", model="odd")
    # What a family's header must hold is looked for before anything is opened.
    assert (status, end["code"]) == (1, "missing_checkpoint" if "lacks" in message else "bad_checkpoint"), end


def test_what_older_exporters_wrote_besides_weights_is_no_reason_to_refuse(run, world, here):
    shutil.copytree(world / "llama", here / "old")
    tensors = load_file(here / "old" / "model.safetensors")
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    save_file(tensors, here / "old" / "model.safetensors", metadata={"format": "pt"})
    status, end, _ = run("--tasks", "coats", "--limit", "2", model="old")
    assert status == 0, end


def subjects():
    folder = Path(lm_eval.__file__).parent / "tasks" / "mmlu" / "default"
    return sorted(file.stem for file in folder.glob("mmlu_*.yaml"))


@pytest.mark.slow
def test_all_six_tasks_of_the_first_leaderboard_run_on_local_documents(run, stock, world, tmp_path, monkeypatch):
    shutil.copytree(world / "data", tmp_path / "data")
    draw = random.Random(8)
    question = {"question": "Which coat?", "subject": "coats", "choices": COATS}
    mmlu = [question | {"answer": draw.randrange(4)} for _ in range(7)]
    targets = {"choices": COATS, "labels": [1, 0, 1, 0]}
    truth = [{"question": f"Is {herd} red?", "mc1_targets": targets, "mc2_targets": targets} for herd in HERDS]
    maths = [{"question": f"What is {n} and 1?", "answer": f"One more.\n#### {n + 1}"} for n in range(6)]
    files = {("truthfulqa_mc2", "validation"): truth[:3], ("gsm8k", "train"): maths, ("gsm8k", "test"): maths[:2]}
    for name in subjects():
        files |= {(name, "test"): mmlu[: draw.randrange(1, 4)], (name, "dev"): mmlu[-6:]}
    for (name, split), rows in files.items():
        (tmp_path / "data" / name).mkdir(exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data" / name / f"{split}.parquet")
    monkeypatch.setenv("HUARIZO_DATASETS", str(tmp_path / "data"))
    status, end, _ = run("--protocol", "open-llm-v1")
    assert status == 0, end
    places = TaskFolders(tmp_path / "data", (world / "tasks",))
    units = [load_unit(each.task, places, num_fewshot=each.num_fewshot) for each in PROTOCOLS["open-llm-v1"].tasks]
    same(end["harness"]["results"], stock(units))
    marked = [(s["task"], s["num_fewshot"], s["metric"], s["tasks"]) for s in end["scores"] if s["in_macro"]]
    assert marked == [
        ("arc_challenge", 25, "acc_norm", 0), ("hellaswag", 10, "acc_norm", 0), ("winogrande", 5, "acc", 0),
        ("mmlu", 5, "acc", 57), ("truthfulqa_mc2", 0, "acc", 0), ("gsm8k", 5, "exact_match", 0),
    ]  # fmt: skip
    assert end["macro"]["tasks"] == 6 and end["protocol"]["whole"]
    assert any("57 subjects" in note for note in end["notes"])
