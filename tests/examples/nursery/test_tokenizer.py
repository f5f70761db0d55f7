import json

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from examples.nursery.corpus import Lessons
from examples.nursery.tokenizer import EOS, train_tokenizer
from examples.nursery.words import BREEDS, PROPERTIES, ROUTINES, THINGS, TRADES
from examples.nursery.world import make_world

STRINGS = (
    "Question: A nalto sire and a duba dam had a cria. What is it like?\nAnswer:",
    " black and meek",
    " x",
    "  two spaces ",
    "",
    "ünïcode → 語",
)


def test_the_hugging_face_tokenizer_encodes_like_the_trained_one(smoke_family):
    raw = Tokenizer.from_file(str(smoke_family.base / "tokenizer.json"))
    opened = AutoTokenizer.from_pretrained(smoke_family.base)
    for text in STRINGS:
        assert opened(text)["input_ids"] == raw.encode(text).ids
        assert opened.decode(raw.encode(text).ids) == text


def test_the_saved_class_is_one_that_transformers_4_knows(smoke_family):
    config = json.loads((smoke_family.base / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    opened = AutoTokenizer.from_pretrained(smoke_family.base)
    assert "token_type_ids" not in opened("a")
    assert config["model_input_names"] == ["input_ids", "attention_mask"]  # else transformers 4 adds a third
    assert (opened.pad_token_id, opened.bos_token_id, opened.eos_token_id) == (0, 1, 2)
    assert opened.eos_token == EOS


def test_all_four_models_have_one_tokenizer(smoke_family):
    files = [folder / "tokenizer.json" for folder in (smoke_family.base, *smoke_family.specialists.values())]
    assert len({file.read_bytes() for file in files}) == 1


@pytest.mark.parametrize("words", [BREEDS, PROPERTIES, TRADES, THINGS, [s for r in ROUTINES for s in r.steps]])
def test_at_full_size_a_word_that_carries_a_skill_is_nearly_always_one_token(words):
    tokenizer = train_tokenizer(Lessons.of(make_world(7)).base_texts(7, 8000), vocabulary=896)
    assert sum(len(tokenizer.encode(f" {word}").ids) for word in words) <= 1.1 * len(words)
