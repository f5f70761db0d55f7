"""Recipe files in both languages, and models as people write them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from core.errors import (
    CheckpointError,
    MergekitError,
    MissingCheckpointError,
    PickleCheckpointError,
    QuantisedCheckpointError,
    RecipeError,
)
from workers.recipe_files import find_model, read_recipe_file

OURS = """
sources:
  - {name: a, model: "models/a"}
  - {name: b, recipe: {sources: [{name: x, model: "hub:org/b@0123456"}], merge: {method: passthrough}}}
merge: {method: linear, params: {weight: {a: 0.5, b: [0.2, 0.8]}}}
save_dtype: float32
"""
MERGEKIT = """
models: [{model: models/a, parameters: {weight: 1}}, {model: org/b@main, parameters: {weight: 2}}]
merge_method: linear
"""
STAGES = f"name: first\n{MERGEKIT}---\nmodels: [{{model: first}}]\nmerge_method: passthrough\n"


def written(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return path


def test_the_language_of_a_file_shows_in_its_keys(tmp_path: Path) -> None:
    ours, theirs = (read_recipe_file(written(tmp_path, text)) for text in (OURS, MERGEKIT))
    assert (ours.form, ours.models) == ("huarizo", ("models/a", "hub:org/b@0123456"))
    assert (theirs.form, theirs.models) == ("mergekit", ("models/a", "org/b@main"))


def test_json_is_read_like_yaml(tmp_path: Path) -> None:
    text = '{"sources": [{"name": "a", "model": "a"}], "merge": {"method": "passthrough"}}'
    assert read_recipe_file(written(tmp_path, text)).models == ("a",)


def test_several_documents_are_stages(tmp_path: Path) -> None:
    found = read_recipe_file(written(tmp_path, STAGES))
    recipe = found.recipe({"models/a": "local:a", "org/b@main": "hub:org/b@main"}, {}, seed=5).recipe
    inner = recipe.sources[0].recipe
    assert inner is not None and [source.model for source in inner.sources] == ["local:a", "hub:org/b@main"]


def test_references_take_the_place_of_names_in_nested_recipes_too(tmp_path: Path) -> None:
    found = read_recipe_file(written(tmp_path, OURS))
    made = found.recipe({"models/a": "local:models/a"}, {}, seed=3)
    assert made.recipe.sources[0].model == "local:models/a" and made.recipe.seed == 3
    inner = made.recipe.sources[1].recipe
    assert inner is not None and inner.sources[0].model == "hub:org/b@0123456"


def test_mergekit_keeps_the_dtype_that_the_models_are_in(tmp_path: Path) -> None:
    found = read_recipe_file(written(tmp_path, MERGEKIT))
    kept = {"models/a": "float16", "org/b@main": "float16"}
    assert found.recipe({}, kept).recipe.save_dtype == "float16"
    assert found.recipe({}, kept | {"org/b@main": "bfloat16"}).recipe.save_dtype == "float32"
    unknown = found.recipe({}, {})
    assert unknown.recipe.save_dtype == "bfloat16" and "not known" in " ".join(unknown.notes)


@pytest.mark.parametrize(
    ("text", "form", "error", "says"),
    [
        ("sources: [", "auto", RecipeError, "YAML or JSON"),
        ("- 1", "auto", RecipeError, "several documents"),
        ("", "auto", RecipeError, "nothing"),
        ("42", "auto", RecipeError, "a int"),
        (OURS.replace("linear", "linear, extra: 1"), "auto", RecipeError, "merge.extra"),
        (OURS, "mergekit", MergekitError, "merge_method"),
        (MERGEKIT, "huarizo", RecipeError, "sources"),
    ],
)
def test_what_is_no_recipe_is_refused(text: str, form: str, error: type, says: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=says):
        read_recipe_file(written(tmp_path, text), form)  # type: ignore[arg-type]


def test_a_folder_counts_before_a_hub_id(tmp_path: Path) -> None:
    (tmp_path / "org" / "model").mkdir(parents=True)
    assert find_model("org/model", [tmp_path]) == "local:org/model"
    assert find_model("org/other", [tmp_path]) == "hub:org/other"
    assert find_model("org/other@0123abc", [tmp_path]) == "hub:org/other@0123abc"
    assert find_model("local:org/model", [tmp_path]) == "local:org/model"
    assert find_model("hub:org/model@1", [tmp_path]) == "hub:org/model@1"


def test_paths_that_lead_out_of_where_they_start_become_absolute(tmp_path: Path) -> None:
    (tmp_path / "models" / "a").mkdir(parents=True)
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "link").symlink_to(tmp_path / "models" / "a")
    for name in ("../models/a", "local:../models/a", str(tmp_path / "models" / "a"), "link", "../work/link"):
        assert find_model(name, [tmp_path / "work"]) == f"local:{tmp_path}/models/a"


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("x.gguf", QuantisedCheckpointError, "gguf_file="),
        ("org/X.GGUF", QuantisedCheckpointError, "gguf_file="),
        ("pytorch_model.bin", PickleCheckpointError, "safe_serialization=True"),
        ("model.safetensors", CheckpointError, "name its folder"),
    ],
)
def test_a_file_in_place_of_a_model_is_refused_with_the_way_out(
    name: str, error: type, says: str, tmp_path: Path
) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"GGUF")
    with pytest.raises(error) as caught:
        find_model(name, [tmp_path / "empty", tmp_path])
    assert says in str(caught.value) and repr(name) in str(caught.value)
    (tmp_path / "other" / name).mkdir(parents=True)
    assert find_model(name, [tmp_path, tmp_path / "other"]) == f"local:{name}"


def test_folders_are_searched_in_order(tmp_path: Path) -> None:
    (tmp_path / "one" / "x").mkdir(parents=True)
    (tmp_path / "two" / "x").mkdir(parents=True)
    assert find_model("../two/x", [tmp_path / "nowhere", tmp_path / "one"]) == f"local:{tmp_path}/two/x"


@pytest.mark.parametrize("name", ["./nowhere", "nowhere", "/no/such/folder", "a/b/c"])
def test_a_model_that_is_nowhere_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(MissingCheckpointError, match="folder or a hub id"):
        find_model(name, [tmp_path])


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("sources: [{name: a, model: a}]", RecipeError, "this is not a recipe: a recipe has exactly one of merge"),
        ("{sources: {a: a}, merge: {method: linear}}", RecipeError, "sources: must be a list, but got {'a': 'a'}"),
        ("{sources: [a], merge: {method: linear}}", RecipeError, "sources.0: must be a mapping, but got 'a'"),
        (
            "{sources: [{name: a, model: a}], merge: {method: linear}, dtype: x}",
            RecipeError,
            "dtype: a recipe has no such key",
        ),
        ("{sources: [{name: a, model: a}], merge: {}}", RecipeError, "merge.method: is missing"),
        (
            "{sources: [{name: a, model: a}], merge: {method: linear}, tokenizer: {mode: x}}",
            RecipeError,
            "recipe: tokenizer.mode: Input should be 'donor'",
        ),
        (
            "{base_model: a, gate_mode: hidden, experts: [{source_model: a}]}",
            MergekitError,
            "mixtures of experts are not",
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_its_own_words(text: str, error: type, says: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=re.escape(says)):
        read_recipe_file(written(tmp_path, text)).recipe({}, {})


def test_numbers_that_yaml_reads_as_text_are_numbers_among_values_alone(tmp_path: Path) -> None:
    inner = "{sources: [{name: 1e-5x, model: '2e5'}], merge: {method: ram, params: {epsilon: [{filter: 1e3, value: 1e-5}]}}}"
    text = (
        f"sources: [{{name: n, recipe: {inner}}}]\nmerge: {{method: linear, params: {{weight: {{n: [2E+1, .5e-1]}}}}}}"
    )
    recipe = read_recipe_file(written(tmp_path, text)).recipe({}, {}).recipe
    assert recipe.merge is not None and recipe.merge.params == {"weight": {"n": [20.0, 0.05]}}
    nested = recipe.sources[0].recipe
    assert nested is not None and nested.merge is not None
    assert nested.sources[0].model == "2e5"
    assert nested.merge.params == {"epsilon": [{"filter": "1e3", "value": 1e-5}]}
