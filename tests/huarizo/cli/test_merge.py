"""`huarizo merge` starts a process and tells what it found; what that process does is tested with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.errors import ConflictError, InvalidInputError
from huarizo.cli import merge as verb
from huarizo.cli.merge import Options, dry_run, merge, size_of, size_text, to_mergekit

OUTLOOK = {
    "event": "done",
    "layers": 2,
    "tensors": 21,
    "parameters": 12345,
    "bytes": 3 << 20,
    "shards": 1,
    "peak_memory": 5000,
    "peak_tensor": "lm_head.weight",
    "methods": {"ties": 21},
    "models": ["local:a", "local:b"],
    "save_dtype": "bfloat16",
    "notes": ["something differs."],
}


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text("sources: []\n")
    return path


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The merging process replaced: `end` is what it answers, `argv` and `environment` what it was given."""
    seen: dict[str, Any] = {"end": {"event": "done", "weights_digest": "w", "notes": ["something differs."]}}

    def relay(argv: list[str], *, environment: dict[str, str], title: str) -> dict[str, Any]:
        seen.update(argv=argv, environment=environment, title=title)
        return dict(seen["end"])

    monkeypatch.setattr(verb, "relay", relay)
    return seen


def test_a_folder_that_holds_something_is_not_written_to(recipe: Path) -> None:
    with pytest.raises(ConflictError, match="new or empty folder"):
        merge(recipe, recipe.parent)


def test_options_reach_the_merging_process(recipe: Path, process: dict[str, Any], capsys: Any) -> None:
    options = Options("mergekit", "float16", 7, 2**33, 50_000, recipe.with_name("statistics.safetensors"))
    merge(recipe, recipe.parent / "out", options)
    words = process["argv"][process["argv"].index("workers.runner.merge") + 1 :]
    assert words[:3] == [str(recipe), str(recipe.parent / "out"), "--json-progress"]
    assert words[3:] == [
        "--format", "mergekit", "--save-dtype", "float16", "--seed", "7", "--max-memory", str(2**33), "--shard-size", "50000",
        "--statistics", str(recipe.with_name("statistics.safetensors")),
    ]  # fmt: skip
    told = capsys.readouterr()
    assert "weights w" in told.out and "note: something differs." in told.err


def test_the_recipes_folder_and_the_working_folder_are_model_roots(
    recipe: Path, process: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(recipe.parent.parent)
    merge(recipe, recipe.parent / "out")
    roots = process["environment"]["HUARIZO_MODEL_ROOTS"].split(":")
    assert roots[:2] == [str(recipe.parent.parent), str(recipe.parent)]


def test_a_dry_run_tells_what_a_merge_would_take(recipe: Path, process: dict[str, Any], capsys: Any) -> None:
    process["end"] = OUTLOOK
    assert dry_run(recipe, Options(max_memory=4096)) == 1
    told = capsys.readouterr()
    for part in ("local:a, local:b", "21 (ties 21)", "12,345", "3.0 MiB of bfloat16 in 1", "4.9 KiB (lm_head.weight)"):
        assert part in told.out
    assert "would be refused" in told.out and "something differs" in told.err
    assert dry_run(recipe, Options(max_memory=4096), as_json=True) == 1
    capsys.readouterr()
    assert dry_run(recipe, Options(max_memory=2**30), as_json=True) == 0
    assert json.loads(capsys.readouterr().out) == {k: v for k, v in OUTLOOK.items() if k != "event"}


def test_a_mergekit_form_of_several_stages_is_several_documents(
    recipe: Path, process: dict[str, Any], capsys: Any
) -> None:
    documents = [{"name": "s", "merge_method": "linear"}, {"merge_method": "slerp", "models": [{"model": "s"}]}]
    process["end"] = {"event": "done", "documents": documents, "notes": []}
    to_mergekit(recipe)
    assert list(yaml.safe_load_all(capsys.readouterr().out)) == documents
    to_mergekit(recipe, as_json=True)
    assert json.loads(capsys.readouterr().out)["config"] == {"merges": documents}


@pytest.mark.parametrize(
    ("text", "size"),
    [("8GiB", 8 << 30), ("8g", 8 << 30), ("500MB", 500_000_000), ("1.5KiB", 1536), ("123", 123), ("2 TB", 2 * 10**12)],
)
def test_a_size_is_read_as_people_write_it(text: str, size: int) -> None:
    assert size_of(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "-1MB", "8 apples", "1e9"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="8GiB"):
        size_of(text)


def test_a_size_is_told_in_the_largest_unit_that_it_fills() -> None:
    assert [size_text(size) for size in (1023, 1024, 3 << 19, 5 << 30)] == [
        "1023 bytes",
        "1.0 KiB",
        "1.5 MiB",
        "5.0 GiB",
    ]
