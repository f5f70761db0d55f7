"""Documentation that cannot rot: everything a user can name is in it."""

import inspect
import re
from pathlib import Path

import pytest

from core import errors
from core.catalog import catalog
from core.draws import Draw
from core.generators import Training
from core.settings import Settings

ROOT = Path(__file__).resolve().parents[2]


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_every_setting_is_documented_with_its_default(name):
    field = Settings.model_fields[name]
    shown = {None: "unset", (): "empty"}.get(field.default, f"`{field.default}`")
    row = next((line for line in read("docs/settings.md").splitlines() if f"`HUARIZO_{name.upper()}`" in line), "")
    assert shown in row


def test_every_error_code_is_documented_and_unique():
    tree = [c for c in vars(errors).values() if inspect.isclass(c) and issubclass(c, errors.HuarizoError)]
    codes = [c.code for c in tree]
    assert len(set(codes)) == len(codes)
    for code in codes:
        assert f"| `{code}` |" in read("docs/errors.md"), code
    for error in tree:
        assert error.__name__ in errors.__doc__, f"{error.__name__} is missing in the drawing of the tree"


def test_every_method_layout_and_strategy_is_documented():
    for info in (*catalog().methods, *catalog().layouts):
        row = next(
            (line for line in read("docs/recipes.md").splitlines() if line.startswith(f"| `{info.name}` |")), None
        )
        assert row, info.name
        for param in info.params:
            assert f"`{param.name}`" in row, (info.name, param.name)
    for info in catalog().strategies:
        assert f"`{info.name}`" in read("docs/jobs.md")


def test_every_arm_selector_preset_and_setting_of_weight_generation_is_documented():
    page = read("docs/weight-generation.md")
    names = [name for arm in catalog().arms for name in (arm.name, *(param.name for param in arm.params))]
    names += [*(selector.name for selector in catalog().selectors), *catalog().generator_presets]
    for name in (*names, *Training.model_fields, *Draw.model_fields.keys() - {"version", "mode"}):
        assert f"`{name}`" in page, name


def test_the_catalogue_is_what_the_registries_say():
    from workers.catalog import generate

    assert generate() == read("core/catalog.json"), "run `make catalog`"


def test_every_make_target_of_the_documentation_exists():
    targets = set(re.findall(r"^([a-z-]+):", read("Makefile"), re.MULTILINE))
    for page in ("README.md", "CONTRIBUTING.md", "docs/architecture.md"):
        for target in re.findall(r"`make ([a-z-]+)", read(page)):
            assert target in targets, (page, target)


def test_every_link_between_pages_leads_somewhere():
    for page in [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("examples/**/*.md"),
    ]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), (page.name, target)


def test_ci_installs_the_browser_that_the_readme_names_and_runs_the_suite():
    script = read(".ci/run")
    assert "make test" in script
    assert "apt-get install chromium" in read("README.md")
    assert "chromium" in script
