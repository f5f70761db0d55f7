"""Every merge method has an example, and an example merged twice gives the same bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from core.catalog import catalog
from core.checkpoint import weights_digest
from core.recipe.short import Recipe
from tests.merging.conftest import write_family
from workers.recipe_files import Prepared, Wanted, prepare
from workers.runner.merge import merge, mergekit_form, outlook

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "recipes"
METHODS = [info.name for info in catalog().methods]
#: Well-known uses of a method: which, and what each source counts.
PRESETS = {"uniform-soup": ("linear", {"a": 0.5, "b": 0.5}), "wise-ft": ("linear", {"base": 0.5, "a": 0.5})}
MERGEKIT = sorted(path.name for path in FOLDER.glob("*.yml"))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model root with three models under the nursery's names."""
    made, root = tmp_path_factory.mktemp("family"), tmp_path_factory.mktemp("root")
    write_family(made, torch.float32)
    (root / "nursery").mkdir()
    for name, stands_for in (("base", "base"), ("a", "arc"), ("b", "wino")):
        (made / name).rename(root / "nursery" / stands_for)
    return root


@pytest.fixture
def prepared(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HUARIZO_MODEL_ROOTS", str(root))
    monkeypatch.chdir(tmp_path)
    return lambda name, **options: prepare(FOLDER / name, Wanted(**options))


def methods_of(recipe: Recipe) -> set[str]:
    return {recipe.merge.method} if recipe.merge is not None else {part.method for part in recipe.slices or ()}


def merged_twice(found: Prepared, folder: Path) -> tuple[str, str]:
    reports = [merge(found, folder / name) for name in ("one", "two")]
    assert {report["recipe_digest"] for report in reports} == {reports[0]["recipe_digest"]}
    one, two = (weights_digest(folder / name) for name in ("one", "two"))
    assert [report["weights_digest"] for report in reports] == [one, two]
    return one, two


@pytest.mark.parametrize("method", METHODS)
def test_the_example_of_a_method_merges_to_the_same_bytes_twice(method: str, prepared, tmp_path: Path) -> None:
    found = prepared(f"{method}.yaml")
    assert methods_of(found.recipe) == {method} and {source.name for source in found.recipe.sources} <= {
        "base",
        "a",
        "b",
    }
    one, two = merged_twice(found, tmp_path)
    assert one == two
    parents = {model.weights_digest for model in found.registered.values()}
    assert one not in parents, "the example changes nothing"


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_the_example_of_a_preset_merges_to_the_same_bytes_twice_and_is_its_average(
    name: str, prepared, root: Path, tmp_path: Path
) -> None:
    found, (method, shares) = prepared(f"{name}.yaml"), PRESETS[name]
    assert methods_of(found.recipe) == {method} and [source.name for source in found.recipe.sources] == list(shares)
    one, two = merged_twice(found, tmp_path)
    assert one == two
    folders = {"base": "base", "a": "arc", "b": "wino"}
    parents = {name: load_file(root / "nursery" / folders[name] / "model.safetensors") for name in shares}
    merged = load_file(tmp_path / "one" / "model.safetensors")
    for tensor, value in merged.items():
        expected = sum(share * parents[name][tensor].double() for name, share in shares.items())
        assert value.dtype == torch.bfloat16
        # Half a step of bfloat16.
        torch.testing.assert_close(value.double(), expected, rtol=2**-8, atol=1e-6)


@pytest.mark.parametrize("name", MERGEKIT)
def test_a_mergekit_example_merges_to_the_same_bytes_twice_and_comes_back(name: str, prepared, tmp_path: Path) -> None:
    found = prepared(name, seed=3)
    one, two = merged_twice(found, tmp_path)
    assert one == two
    assert mergekit_form(found)["documents"][-1]["out_dtype"] == "bfloat16"
    assert outlook(found)["bytes"] == sum(
        path.stat().st_size for path in (tmp_path / "one").glob("*.safetensors")
    ) - header(tmp_path / "one" / "model.safetensors")


def header(file: Path) -> int:
    """Bytes before the weights of a safetensors file."""
    with file.open("rb") as handle:
        return 8 + int.from_bytes(handle.read(8), "little")


def test_there_are_two_mergekit_examples() -> None:
    assert len(MERGEKIT) == 2


def test_no_example_is_of_a_method_or_preset_that_is_not_there() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.yaml")) == sorted([*METHODS, *PRESETS])
