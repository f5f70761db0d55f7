"""What the tokenizer library reads as one pre-tokeniser is one, however it is spelt."""

import json

import pytest
from tokenizers import Tokenizer, models

from core.checkpoint import read_json
from core.segmentation import segmentation

BARE = json.loads(Tokenizer(models.BPE()).to_str())
META = {"type": "Metaspace", "replacement": "_"}
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
DIGITS = {"type": "Digits", "individual_digits": True}


@pytest.mark.parametrize(
    "spelt",
    [
        META,
        META | {"add_prefix_space": True},
        META | {"str_rep": "_", "add_prefix_space": True, "prepend_scheme": "first"},
        META | {"add_prefix_space": False, "prepend_scheme": "never"},
        META | {"split": False},
        BYTES,
        BYTES | {"use_regex": False},
        {"type": "Sequence", "pretokenizers": [DIGITS, BYTES]},
        None,
    ],
)
def test_a_spelling_means_what_the_library_writes_for_it(spelt, tmp_path):
    file = tmp_path / "tokenizer.json"
    Tokenizer.from_str(json.dumps(BARE | {"pre_tokenizer": spelt})).save(str(file))
    assert segmentation(BARE | {"pre_tokenizer": spelt}) == segmentation(read_json(file))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"pre_tokenizer": META}, {"pre_tokenizer": META | {"prepend_scheme": "first"}}),
        ({"pre_tokenizer": META}, {"pre_tokenizer": META | {"split": False}}),
        ({"pre_tokenizer": BYTES}, {"pre_tokenizer": BYTES | {"use_regex": False}}),
        ({"pre_tokenizer": BYTES}, {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [DIGITS, BYTES]}}),
        ({"normalizer": {"type": "Lowercase"}}, {}),
        ({"model": BARE["model"] | {"ignore_merges": True}}, {}),
    ],
)
def test_what_cuts_a_text_otherwise_is_told_apart(one, other):
    assert segmentation(BARE | one) != segmentation(BARE | other)


def test_vocabulary_frames_and_offsets_are_nothing_of_it():
    model = {key: value for key, value in BARE["model"].items() if value} | {"vocab": {"x": 0}, "dropout": 0.0}
    framed = {"model": model, "pre_tokenizer": BYTES | {"trim_offsets": False}, "post_processor": BYTES}
    assert segmentation(framed) == segmentation(BARE | {"pre_tokenizer": BYTES})
