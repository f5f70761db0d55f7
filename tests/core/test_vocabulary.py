import json
from pathlib import Path

import pytest

from core.errors import CheckpointError, HuarizoError, MissingCheckpointError
from core.vocabulary import difference, read_vocabulary


def write(folder: Path, vocab=None, merges=(), added=(), **rest) -> Path:
    model = {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2} if vocab is None else vocab, "merges": list(merges)}
    content = {"model": model | rest.pop("model", {}), "added_tokens": list(added), **rest}
    folder.mkdir(exist_ok=True, parents=True)
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return folder


def test_tokens_come_in_the_order_of_their_ids_and_added_ones_count(tmp_path):
    added = [{"id": 4, "content": "<x>", "special": True}, {"id": 3, "content": "<y>", "special": False}]
    found = read_vocabulary(write(tmp_path, {"b": 1, "a": 0, "ab": 2}, ["a b"], added))
    assert list(found.ids.items()) == [("a", 0), ("b", 1), ("ab", 2), ("<y>", 3), ("<x>", 4)]
    assert found.special == {"<x>"} and found.kind == "BPE"
    assert found.merges == (("a", "b"),)


def test_both_ways_to_write_merges_are_one(tmp_path):
    old, new = (read_vocabulary(write(tmp_path / n, merges=m)) for n, m in (("o", ["a b"]), ("n", [["a", "b"]])))
    assert old.merges == new.merges


def test_an_added_token_goes_before_a_piece_of_the_same_text(tmp_path):
    found = read_vocabulary(write(tmp_path, added=[{"id": 7, "content": "ab"}]))
    assert found.ids["ab"] == 7


def test_scored_vocabularies_are_numbered_by_place(tmp_path):
    found = read_vocabulary(write(tmp_path, [["<unk>", 0.0], ["▁a", -1.5]], model={"type": "Unigram"}))
    assert dict(found.ids) == {"<unk>": 0, "▁a": 1}


def test_what_is_off_and_what_is_absent_are_one_rule(tmp_path):
    plain = read_vocabulary(write(tmp_path / "plain"))
    said = write(
        tmp_path / "said", model={"byte_fallback": False, "unk_token": None, "end_of_word_suffix": ""}, normalizer=None
    )
    assert read_vocabulary(said).rules == plain.rules
    assert read_vocabulary(write(tmp_path / "other", model={"byte_fallback": True})).rules != plain.rules


@pytest.mark.parametrize(
    ("vocab", "merges", "told"),
    [
        ({"a": 0, "c": 1}, [], "they have 3 and 2 tokens, and id 1 is 'b' and 'c'"),
        ({"a": 0, "b": 1, "ab": 2, "c": 3}, [], "they have 3 and 4 tokens, and id 3 is no token and 'c'"),
        ({"a": 0, "b": 1, "ab": 2}, ["a b"], "they have 3 and 3 tokens, all of them equal, but"),
        ({"a": 0, "b": 1, "ab": 2}, [], None),
    ],
)
def test_a_difference_is_told_by_sizes_and_its_first_token(tmp_path, vocab, merges, told):
    left, right = write(tmp_path / "left"), write(tmp_path / "right", vocab, merges)
    found = difference(read_vocabulary(left), read_vocabulary(right))
    assert found is None if told is None else found.startswith(told)


def test_a_tokenizer_without_json_is_refused_with_the_way_out(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(b"sentencepiece")
    with pytest.raises(MissingCheckpointError, match="AutoTokenizer"):
        read_vocabulary(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"model": {"vocab": 3}},
        {"model": {"vocab": {"a": "0"}}},
        {"model": {"vocab": {"a": -1}}},
        {"model": {"vocab": {"a": True}}},
        {"model": {"vocab": {"a": 10**12}}},
        {"model": {"vocab": [[]]}},
        {"model": {"vocab": {}}, "added_tokens": [3]},
        {"model": {"vocab": {}}, "added_tokens": [{"content": "x"}]},
        {"model": {"vocab": {"a": 0}, "merges": ["a"]}},
        {"model": {"vocab": {"a": 0}, "merges": [["a", 3]]}},
        {"model": {"vocab": {"a": 0}, "merges": 5}},
        [],
    ],
)
def test_a_damaged_tokenizer_is_refused_with_a_code(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError) as caught:
        read_vocabulary(tmp_path)
    assert isinstance(caught.value, HuarizoError) and caught.value.code in ("bad_checkpoint", "truncated_checkpoint")
