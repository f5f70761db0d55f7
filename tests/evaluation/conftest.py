"""A tiny model, a byte-level tokenizer and a few documents per task, all built here; and the stock harness as oracle."""

import json
import random
from dataclasses import dataclass
from pathlib import Path

import lm_eval
import lm_eval.evaluator
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from evaluation.catalog import TaskFolders, load_task

BREEDS = ["nalto", "brela", "dusix", "vamba", "keromi", "zutor"]
COATS = ["black", "red", "grey", "white"]
TEMPERS = ["proud", "wild", "calm", "bold", "a bit shy"]
RIDDLES = """
task: riddles
dataset_path: parquet
dataset_kwargs:
  data_files: {train: riddles/train.parquet, search: riddles/search.parquet, test: riddles/test.parquet}
output_type: multiple_choice
training_split: train
validation_split: search
test_split: test
doc_to_text: "Riddle: {{riddle}}\\nAnswer:"
doc_to_target: "{{answer}}"
doc_to_choice: "{{choices}}"
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
metadata: {version: 2.0, search_split: search, heldout_split: test}
"""


def _arc(draw):
    sire, dam = draw.sample(BREEDS, 2)
    choices = [f"{draw.choice(COATS)} and {draw.choice(TEMPERS)}" for _ in range(draw.choice([3, 4, 4, 4]))]
    labels = draw.choice([list("ABCD"), list("1234")])[: len(choices)]
    question = f"A {sire} sire and a {dam} dam had a cria, number {draw.randrange(99)}. What is it like?"
    return {
        "id": f"q{draw.random()}",
        "question": question,
        "choices": {"text": choices, "label": labels},
        "answerKey": draw.choice(labels),
    }


def _winogrande(draw):
    a, b = draw.sample(["the shepherd", "the basket", "the loom", "Ada", "Bram"], 2)
    sentence = f"Once {a} pleased {b} {draw.choice(['since', 'because'])} _ was {draw.choice(TEMPERS)}."
    return {"sentence": sentence, "option1": a, "option2": b, "answer": draw.choice("12")}


def _hellaswag(draw):
    verbs = draw.sample(["tore", "boiled", "hung [up]", "rinsed", "beat", "folded", "combed"], 6)
    context = f"Rera {verbs[0]} the rags. [title] Then she {verbs[1]} them."
    endings = [f"{verb} it [step] twice." if draw.random() < 0.3 else f"{verb} it." for verb in verbs[2:]]
    row = {
        "ind": 1,
        "activity_label": "Papermaking",
        "ctx_a": context,
        "ctx_b": "next she",
        "ctx": context + " next she",
    }
    return row | {"endings": endings, "source_id": "", "split": "val", "split_type": "", "label": draw.choice("0123")}


def _riddle(draw):
    choices = [draw.choice(COATS) for _ in range(3)]
    return {
        "riddle": f"What coat has {draw.choice(BREEDS)} {draw.randrange(999)}?",
        "choices": choices,
        "answer": draw.randrange(3),
    }


def _write(folder, makers, rows, seed):
    folder.mkdir(parents=True)
    draw = random.Random(seed)
    for split, count in rows.items():
        pq.write_table(pa.Table.from_pylist([makers(draw) for _ in range(count)]), folder / f"{split}.parquet")


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """All four stock tasks as local Parquet, and a registered task with its own search and held-out splits."""
    root = tmp_path_factory.mktemp("tasks")
    for seed, (name, maker) in enumerate(
        {"arc_challenge": _arc, "arc_easy": _arc, "winogrande": _winogrande, "hellaswag": _hellaswag}.items()
    ):
        evaluated = {"test": 14} if maker is _arc else {"validation": 14}
        _write(root / "datasets" / name, maker, {"train": 8, "validation": 3} | evaluated, seed)
    registered = root / "registered"
    _write(registered / "riddles", _riddle, {"train": 8, "search": 9, "test": 6}, 9)
    (registered / "riddles.yaml").write_text(RIDDLES)
    return TaskFolders(root / "datasets", (registered,))


@pytest.fixture(scope="session")
def many_shots(tmp_path_factory):
    """The four stock tasks with few documents and enough examples for the 25, 25, 10 and 5 shots of leaderboards."""
    root = tmp_path_factory.mktemp("many_shots")
    for seed, (name, maker) in enumerate(
        {"arc_challenge": _arc, "arc_easy": _arc, "winogrande": _winogrande, "hellaswag": _hellaswag}.items()
    ):
        evaluated = {"test": 4} if maker is _arc else {"validation": 4}
        _write(root / name, maker, {"train": 30, "validation": 3} | evaluated, 50 + seed)
    return TaskFolders(root)


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory, folders):
    """A byte-level BPE of 320 tokens, trained on the documents; no token is added by itself."""
    texts = []
    for file in sorted(folders.datasets.parent.rglob("*.parquet")):
        texts += [json.dumps(row) for row in pq.read_table(file).to_pylist()]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    raw.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=320, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
        ),
    )
    folder = tmp_path_factory.mktemp("tokenizer")
    PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>").save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tokenizer(tokenizer_folder):
    return PreTrainedTokenizerFast.from_pretrained(tokenizer_folder)


@pytest.fixture(scope="session")
def bos_tokenizer(folders):
    """A Unigram tokenizer of 320 tokens that marks the beginnings of words, as SentencePiece does, and begins every
    text with a token of its own where special tokens are asked for."""
    texts = [
        json.dumps(row)
        for file in sorted(folders.datasets.parent.rglob("*.parquet"))
        for row in pq.read_table(file).to_pylist()
    ]
    raw = Tokenizer(models.Unigram())
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    raw.train_from_iterator(
        texts,
        trainers.UnigramTrainer(
            vocab_size=320, special_tokens=["<s>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
        ),
    )
    raw.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


@pytest.fixture(scope="session")
def make_model():
    """Builds a random Llama: `make_model(seed, **configuration)`."""

    def make(seed=0, **changes):
        shape = {
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
        }
        config = LlamaConfig(
            **shape | {"vocab_size": 320, "max_position_embeddings": 512, "initializer_range": 0.3} | changes
        )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return LlamaForCausalLM(config).eval()

    return make


@pytest.fixture(scope="session")
def model(make_model):
    return make_model()


#: Architectures as (model_type, changes to SHAPE). Windows are shorter than most texts, caps low enough to bite.
SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "vocab_size": 320,
    "initializer_range": 0.3,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": None,
}
_MIXED = {"layer_types": ["sliding_attention", "full_attention"]}
ARCHITECTURES = {
    "llama": ("llama", {}),
    "mistral": ("mistral", {"sliding_window": None}),
    "mistral-window": ("mistral", {"sliding_window": 7}),
    "qwen2": ("qwen2", {"tie_word_embeddings": True}),
    "qwen2-window": ("qwen2", _MIXED | {"use_sliding_window": True, "sliding_window": 7}),
    "qwen3": ("qwen3", {"head_dim": 16}),
    "gemma": ("gemma", {"head_dim": 8}),
    "gemma2": (
        "gemma2",
        _MIXED
        | {"head_dim": 8, "sliding_window": 7, "final_logit_softcapping": 3.0, "attn_logit_softcapping": 2.0}
        | {"query_pre_attn_scalar": 8},
    ),
    "gemma3": ("gemma3_text", _MIXED | {"head_dim": 8, "sliding_window": 7, "query_pre_attn_scalar": 8}),
    "gemma3-eager": (
        "gemma3_text",
        _MIXED | {"head_dim": 8, "sliding_window": 7, "final_logit_softcapping": 3.0, "attn_implementation": "eager"},
    ),
    "phi3": ("phi3", {}),
    "phi3-window": ("phi3", {"sliding_window": 7}),
    "gpt_neox": ("gpt_neox", {}),
    "gpt2": ("gpt2", {}),
    "granite": ("granite", {"logits_scaling": 3.0, "embedding_multiplier": 2.0}),
}


@pytest.fixture(scope="session")
def make_architecture():
    """Builds a random model of one of `ARCHITECTURES`: `make_architecture(name, seed, **configuration)`."""

    def make(name, seed=0, **changes):
        kind, own = ARCHITECTURES[name]
        options = SHAPE | own | changes
        attention = {k: options.pop(k) for k in ("attn_implementation",) if k in options}
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = AutoModelForCausalLM.from_config(
                AutoConfig.for_model(kind, **options), dtype=torch.float32, **attention
            ).eval()
            # Norms start at one and biases at zero, where a scale or a shift left out would not show.
            for parameter in model.parameters():
                if parameter.ndim == 1:
                    parameter.data += 0.2 * torch.randn_like(parameter)
        return model

    make.names = tuple(ARCHITECTURES)
    return make


@dataclass(frozen=True)
class Run:
    """What one `simple_evaluate` said: results, and per task the samples in document order."""

    results: dict
    samples: dict

    def lls(self, task):
        return [[response[0][0] for response in sample["resps"]] for sample in self.samples[task]]

    def greedy(self, task):
        return [[response[0][1] for response in sample["resps"]] for sample in self.samples[task]]

    def arguments(self, task):
        return [[tuple(pair) for pair in sample["arguments"]] for sample in self.samples[task]]


@pytest.fixture
def evaluate(monkeypatch):
    """lm-eval's own run: `evaluate(lm, tasks)` -> Run."""
    monkeypatch.setattr(HFLM, "get_model_info", lambda self: {})  # asks the hub about models given by name
    monkeypatch.setattr(lm_eval.evaluator, "add_env_info", lambda results: None)  # starts a dozen programs

    def run(lm, tasks, **options):
        manager = TaskManager(include_defaults=False)
        found = lm_eval.simple_evaluate(
            lm, tasks=list(tasks), task_manager=manager, log_samples=True, verbosity="ERROR", **options
        )
        samples = {name: sorted(rows, key=lambda row: row["doc_id"]) for name, rows in found["samples"].items()}
        return Run(found["results"], samples)

    return run


@pytest.fixture
def stock(evaluate, folders, tokenizer):
    """The oracle: the harness's own Hugging Face model on fresh task objects, `stock(model, names, shots)`."""

    def run(model, names, shots=0, *, split=None, max_length=None, add_bos=False, batch_size=4):
        lm = HFLM(model, tokenizer=tokenizer, batch_size=batch_size, max_length=max_length, add_bos_token=add_bos)
        tasks = [load_task(name, folders, num_fewshot=shots, split=split) for name in names]
        return evaluate(lm, tasks, num_fewshot=shots or None)

    return run


@pytest.fixture(scope="session")
def near():
    """Whether two log-likelihoods agree: 1e-4, relaxed in proportion for sums beyond ten nats."""

    def close(a, b):
        return abs(a - b) <= 1e-4 * max(1.0, abs(a) / 10)

    return close


@pytest.fixture(scope="session")
def repository():
    return Path(__file__).parents[2]
