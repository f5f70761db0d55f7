from __future__ import annotations

import json

import pytest

from core.errors import CheckpointError, PathNotAllowedError
from merging.tokenizer_files import copy_tokenizer, portable_config


def test_only_tokenizer_files_are_copied(tmp_path):
    donor, out = tmp_path / "donor", tmp_path / "out"
    donor.mkdir()
    out.mkdir()
    for name in ("tokenizer.json", "chat_template.jinja", "model.safetensors", "modeling_evil.py", "README.md"):
        (donor / name).write_text(name)
    (donor / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "TokenizersBackend"}))
    names = copy_tokenizer(donor, out)
    assert (
        sorted(names)
        == sorted(p.name for p in out.iterdir())
        == ["chat_template.jinja", "tokenizer.json", "tokenizer_config.json"]
    )
    assert (out / "tokenizer.json").read_text() == "tokenizer.json"


def test_a_donor_without_tokenizer_gives_none(tmp_path):
    (tmp_path / "out").mkdir()
    assert copy_tokenizer(tmp_path, tmp_path / "out") == ()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            {"tokenizer_class": "TokenizersBackend", "backend": "tokenizers"},
            {"tokenizer_class": "PreTrainedTokenizerFast"},
        ),
        ({"tokenizer_class": "LlamaTokenizer"}, {"tokenizer_class": "LlamaTokenizer"}),
        ({"extra_special_tokens": ["<a>"]}, {"additional_special_tokens": ["<a>"]}),
        ({"extra_special_tokens": {"image": "<i>"}}, {"extra_special_tokens": {"image": "<i>"}}),
        ({"auto_map": {"AutoTokenizer": "evil.py"}, "bos_token": "<s>"}, {"bos_token": "<s>"}),
    ],
    ids=["backend class", "known class", "listed extras", "named extras", "remote code"],
)
def test_the_config_is_put_in_words_both_transformers_share(given, expected):
    assert portable_config(given) == expected


@pytest.mark.parametrize("text", ["{", "[1]", "7", "[" * 100_000])
def test_a_config_that_is_no_object_is_refused_by_name(tmp_path, text):
    donor, out = tmp_path / "donor", tmp_path / "out"
    donor.mkdir()
    out.mkdir()
    (donor / "tokenizer_config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"tokenizer_config.json of 'donor' .* mend or delete it") as caught:
        copy_tokenizer(donor, out)
    assert caught.value.where == "tokenizer_config.json"


@pytest.mark.parametrize("name", ["tokenizer.json", "chat_template.jinja", "tokenizer_config.json"])
def test_a_link_out_of_the_donor_is_not_followed(tmp_path, name):
    donor, out = tmp_path / "donor", tmp_path / "out"
    donor.mkdir()
    out.mkdir()
    (tmp_path / "secret").write_text("{}")
    (donor / name).symlink_to(tmp_path / "secret")
    with pytest.raises(PathNotAllowedError, match=name):
        copy_tokenizer(donor, out)
    assert list(out.iterdir()) == []
    assert copy_tokenizer(donor, out, roots=[tmp_path]) == (name,)
    assert not (out / name).is_symlink()
