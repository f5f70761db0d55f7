"""Whole runs of the harness over tasks of running text: perplexity, one continuation, generated answers."""

import copy
import json

import pytest
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from evaluation.catalog import FileTask
from evaluation.lm import HuarizoLM

PAGES = [
    " ".join(f"The {n}th cria of {herd} is {coat}." for n, coat in enumerate(["red", "grey", "black"] * count))
    for herd, count in (("Nalto", 9), ("Brela", 1), ("Dusix", 3))
] + ["Vamba", ""]
TASKS = {
    "pages": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [{"metric": name} for name in ("word_perplexity", "byte_perplexity", "bits_per_byte")],
    },
    "last_words": {
        "output_type": "loglikelihood",
        "doc_to_text": "{{text.split(' ')[:-1]|join(' ')}}",
        "doc_to_target": "{{' ' + text.split(' ')[-1]}}",
        "metric_list": [
            {"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False},
            {"metric": "acc", "aggregation": "mean", "higher_is_better": True},
        ],
    },
    "answers": {
        "output_type": "generate_until",
        "doc_to_text": "{{text}} Next:",
        "doc_to_target": "red",
        "generation_kwargs": {"until": ["."], "max_gen_toks": 6, "do_sample": False},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    },
}


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    file = tmp_path_factory.mktemp("pages") / "pages.jsonl"
    file.write_text("\n".join(json.dumps({"text": page}) for page in PAGES[:-1]))
    return file


@pytest.fixture
def run(evaluate, pages):
    def start(lm, name):
        data = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(pages)}}, "test_split": "test"}
        return evaluate(lm, [FileTask(config={"task": name, **data, **TASKS[name]})])

    return start


def close(ours, theirs):
    """Whether two results dicts agree: the harness adds single numbers that it rounded to float32."""
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        assert ours[key] == (pytest.approx(value, rel=1e-5) if isinstance(value, float) else value)


@pytest.mark.parametrize(
    ("name", "max_length", "add_bos"), [("llama", None, False), ("gemma2", 24, True), ("gpt2", 7, False)]
)
def test_perplexities_are_the_harness_s(name, max_length, add_bos, run, make_architecture, bos_tokenizer, near):
    model = make_architecture(name)
    options = {"tokenizer": bos_tokenizer, "max_length": max_length}
    theirs = run(HFLM(model, batch_size=2, add_bos_token=add_bos, **options), "pages")
    ours = run(HuarizoLM(model, add_bos=add_bos, **options), "pages")
    close(ours.results["pages"], theirs.results["pages"])
    for mine, other in zip(ours.samples["pages"], theirs.samples["pages"], strict=True):
        assert near(mine["resps"][0][0], other["resps"][0][0])
        assert {key: mine[key] for key in ("doc_hash", "prompt_hash", "target_hash")} == {
            key: other[key] for key in ("doc_hash", "prompt_hash", "target_hash")
        }


@pytest.mark.parametrize("length", [1, 2, 5, 12])
def test_windows_of_any_length_predict_every_token_once_as_the_harness_s_do(length, model, tokenizer, near):
    requests = [Instance("loglikelihood_rolling", {}, (page,), 0) for page in PAGES]
    # Its cache of single tokens takes two windows over one text, which predict more or less of it, for one.
    stock = HFLM(model, tokenizer=tokenizer, max_length=length, logits_cache=False)
    theirs = stock.loglikelihood_rolling(requests, disable_tqdm=True)
    ours = HuarizoLM(model, tokenizer, max_length=length).loglikelihood_rolling(requests)
    assert all(map(near, ours, theirs))
    assert ours[-1] == 0.0


def test_a_continuation_that_is_the_whole_answer_is_judged_as_by_the_harness(run, make_architecture, tokenizer):
    model = make_architecture("qwen3")
    theirs = run(HFLM(model, tokenizer=tokenizer, batch_size=2), "last_words")
    ours = run(HuarizoLM(model, tokenizer), "last_words")
    close(ours.results["last_words"], theirs.results["last_words"])
    assert [s["acc"] for s in ours.samples["last_words"]] == [s["acc"] for s in theirs.samples["last_words"]]


@pytest.mark.parametrize("together", [1, 3])
def test_generated_answers_are_the_harness_s(together, run, make_architecture, tokenizer):
    model = make_architecture("llama")
    theirs = run(HFLM(model, tokenizer=tokenizer, batch_size=together), "answers")
    lm = HuarizoLM(model, tokenizer, generated_together=together)
    ours = run(lm, "answers")
    answers = [sample["resps"] for sample in ours.samples["answers"]]
    assert answers == [sample["resps"] for sample in theirs.samples["answers"]]
    assert any(text for document in answers for text in document[0])
    assert ours.results == theirs.results


def test_generation_leaves_the_tokenizer_of_the_encoder_as_it_was(model, bos_tokenizer):
    unpadded = copy.deepcopy(bos_tokenizer)
    unpadded.pad_token = None
    lm = HuarizoLM(model, unpadded)
    lm.generate_until([Instance("generate_until", {}, ("Question", {"until": ["."], "max_gen_toks": 2}), 0)], True)
    assert unpadded.pad_token is None
