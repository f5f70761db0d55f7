import json
from pathlib import Path

from core.errors import ParentsDoNotFitError
from core.model import Header, Model
from workers.vocabularies import in_tokens


def model(folder: Path, name: str, *tokens: str) -> Model:
    (folder / name).mkdir()
    content = {"model": {"type": "BPE", "vocab": {token: number for number, token in enumerate(tokens)}, "merges": []}}
    (folder / name / "tokenizer.json").write_text(json.dumps(content))
    header = Header(model_type="llama", config="{}", layers=1, vocab_size=9, tokenizer_digest=repr(tokens), tensors=())
    return Model(name=name, ref=str(folder / name), weights_digest=name, header=header)


def test_vocabularies_that_do_not_fit_are_told_apart_by_sizes_and_the_first_token(tmp_path):
    models = [model(tmp_path, "a", "x", "y"), model(tmp_path, "twin", "x", "y"), model(tmp_path, "b", "x", "z", "w")]
    told = in_tokens(ParentsDoNotFitError("they do not fit", where="tokenizer"), models, Path)
    assert told.message == "they do not fit ('a' and 'b': they have 2 and 3 tokens, and id 1 is 'y' and 'z')"
    assert told.where == "tokenizer"


def test_another_reason_and_tokenizers_that_cannot_be_read_leave_the_message_as_it_is(tmp_path):
    models = [model(tmp_path, "a", "x"), model(tmp_path, "b", "y")]
    other = ParentsDoNotFitError("they have other shapes", where="lm_head.weight")
    assert in_tokens(other, models, Path) is other
    (tmp_path / "b" / "tokenizer.json").unlink()
    same = ParentsDoNotFitError("they do not fit", where="tokenizer")
    assert in_tokens(same, models, Path) is same


def test_tokenizers_of_equal_tokens_are_told_apart_by_the_first_rule_that_cuts_texts_otherwise(tmp_path):
    models = [model(tmp_path, "a", "x"), model(tmp_path, "b", "x")]
    file = tmp_path / "b" / "tokenizer.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "normalizer": {"type": "Lowercase"}}))
    models = [m.evolve(header=m.header.evolve(tokenizer_rules=m.name)) for m in models]
    told = in_tokens(ParentsDoNotFitError("they do not fit", where="tokenizer"), models, Path)
    assert told.message == (
        "they do not fit ('a' and 'b': 'normalizer' of the tokenizers is null and {\"type\":\"Lowercase\"})"
    )
