import json
from types import SimpleNamespace

import pytest
from lm_eval.models.huggingface import HFLM
from tokenizers.processors import TemplateProcessing
from transformers import LlamaConfig, PreTrainedTokenizerFast

from core.errors import TaskError
from evaluation.encoding import Encoder, config_length, default_max_length, with_defaults

PAIRS = [
    ("Question: what?", " red"),
    ("Question: what? ", "red"),
    ("trailing \n\n ", "and on"),
    ("no blank", "glued"),
    ("Wörter – in any script", " 美洲驼"),
    ("a", " "),
]


@pytest.mark.parametrize("add_bos", [False, True])
def test_pairs_are_encoded_as_the_harness_encodes_them(add_bos, model, tokenizer):
    lm = HFLM(model, tokenizer=tokenizer, add_bos_token=add_bos)
    found = Encoder(tokenizer, 512, add_bos=add_bos).requests(PAIRS)
    for request, pair in zip(found, PAIRS, strict=True):
        context, continuation = lm._encode_pair(*pair)
        assert request.read.tolist() == (context + continuation)[:-1]
        assert request.continuation.tolist() == continuation


def test_a_bos_that_the_tokenizer_adds_is_kept_only_on_request(tokenizer_folder):
    adding = PreTrainedTokenizerFast.from_pretrained(tokenizer_folder)
    adding._tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", adding.bos_token_id)]
    )
    [with_bos] = Encoder(adding, 99, add_bos=True).requests([("a b", " c")])
    [without] = Encoder(adding, 99).requests([("a b", " c")])
    assert with_bos.read.tolist() == [adding.bos_token_id, *without.read.tolist()]


def test_an_empty_context_becomes_the_beginning_of_text(tokenizer):
    [request] = Encoder(tokenizer, 99).requests([("", "red one")])
    assert request.read.tolist() == [tokenizer.bos_token_id, *tokenizer.encode("red one")[:-1]]


def test_without_any_prefix_token_an_empty_context_is_an_error(tokenizer_folder):
    bare = PreTrainedTokenizerFast(tokenizer_file=str(tokenizer_folder / "tokenizer.json"))
    with pytest.raises(TaskError, match="bos or eos"):
        Encoder(bare, 99).requests([("", "red")])


def test_truncation_drops_the_left_and_keeps_the_continuation(tokenizer):
    request = Encoder(tokenizer, 4).truncate([1, 2, 3, 4, 5], [6, 7])
    assert (request.read.tolist(), request.continuation.tolist()) == ([3, 4, 5, 6], [6, 7])


def test_a_continuation_that_fills_the_window_reads_one_token_of_context(tokenizer):
    assert Encoder(tokenizer, 2).truncate([1, 2], [3, 4]).read.tolist() == [2, 3]


@pytest.mark.parametrize("continuation", [[], [1, 2, 3]])
def test_a_continuation_of_no_or_too_many_tokens_is_refused(tokenizer, continuation):
    with pytest.raises(TaskError, match="must have 1 to 2 tokens"):
        Encoder(tokenizer, 2).truncate([1], continuation, " red")


def test_the_default_length_is_the_one_the_harness_takes(model, tokenizer):
    assert default_max_length(model.config, tokenizer) == HFLM(model, tokenizer=tokenizer).max_length == 512
    assert default_max_length(SimpleNamespace(n_positions=77), tokenizer) == 77
    assert default_max_length({"n_ctx": 88}, tokenizer) == 88
    assert default_max_length({}, SimpleNamespace(model_max_length=640)) == 640
    assert default_max_length({}, SimpleNamespace(model_max_length=10**15)) == 10**15
    assert default_max_length({}, tokenizer) == 2048


@pytest.mark.parametrize(
    "name", ["llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "phi3", "gpt_neox", "gpt2", "granite"]
)
@pytest.mark.parametrize("named", [True, False])
def test_the_length_of_every_architecture_is_the_harness_s_where_config_json_names_none(
    name, named, make_architecture, tokenizer, monkeypatch
):
    model = make_architecture(name)
    written = json.loads(model.config.to_json_string(use_diff=False))
    if not named:
        for key in ("n_positions", "max_position_embeddings", "n_ctx"):
            written.pop(key, None)
        monkeypatch.setattr(model, "config", type(model.config).from_dict(written))
    theirs = HFLM(model, tokenizer=tokenizer).max_length
    assert default_max_length(with_defaults(written), tokenizer) == theirs
    assert named == (theirs == 512)


def test_a_model_that_transformers_does_not_know_has_the_length_that_is_written(tokenizer):
    assert config_length(with_defaults({"model_type": "no_such", "max_position_embeddings": 9})) == 9
    assert config_length(with_defaults({"model_type": "llama"})) == LlamaConfig().max_position_embeddings
    assert config_length(with_defaults({})) is None
