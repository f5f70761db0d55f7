"""A recipe is checked before anything heavy starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.errors import ConflictError, InvalidInputError, RecipeError, UnknownLayoutError, UnknownMethodError
from huarizo.cli.merge import check_recipe, merge, read_recipe

RECIPE = """
sources:
  - {name: a, model: "local:a"}
  - {name: b, model: "hub:org/b@0123456"}
merge:
  method: METHOD
  params: {weight: {a: 0.5, b: [0.2, 0.8]}}
save_dtype: float32
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return path


def test_a_recipe_is_read_from_yaml_and_from_json(tmp_path: Path) -> None:
    recipe = read_recipe(written(tmp_path, RECIPE.replace("METHOD", "linear")))
    check_recipe(recipe)
    assert read_recipe(written(tmp_path, recipe.model_dump_json())) == recipe


@pytest.mark.parametrize(
    ("text", "said"), [("a: [", "YAML or JSON"), ("- 1", "holds a list"), ("", "holds a NoneType")]
)
def test_what_is_no_mapping_is_refused(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=said):
        read_recipe(written(tmp_path, text))


def test_an_unknown_method_gets_a_suggestion(tmp_path: Path) -> None:
    with pytest.raises(UnknownMethodError, match="'linear'"):
        check_recipe(read_recipe(written(tmp_path, RECIPE.replace("METHOD", "lineer"))))


def test_names_inside_nested_recipes_are_checked_too(tmp_path: Path) -> None:
    text = (
        '{"sources": [{"name": "x", "recipe": {"sources": [{"name": "a", "model": "local:a"}],'
        ' "layout": {"preset": "duss", "source": "a"}}}], "merge": {"method": "linear"}}'
    )
    with pytest.raises(UnknownLayoutError, match="'dus'"):
        check_recipe(read_recipe(written(tmp_path, text)))


def test_a_registered_name_needs_a_service(tmp_path: Path) -> None:
    text = RECIPE.replace("METHOD", "linear").replace("local:a", "a")
    with pytest.raises(RecipeError, match="local:<path>"):
        check_recipe(read_recipe(written(tmp_path, text)))


def test_a_folder_that_holds_something_is_not_written_to(tmp_path: Path) -> None:
    recipe = written(tmp_path, RECIPE.replace("METHOD", "linear"))
    with pytest.raises(ConflictError, match="new or empty folder"):
        merge(recipe, tmp_path)
