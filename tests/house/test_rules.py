"""House rules that no type checker knows. Each says which failure it prevents."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("core", "store", "search", "merging", "evaluation", "workers", "api", "huarizo")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def run(*command):
    return subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True)


def test_ruff_finds_nothing():
    done = run("ruff", "check", "--quiet", ".")
    assert done.returncode == 0, done.stdout


def test_the_code_is_formatted():
    done = run("ruff", "format", "--check", "--quiet", ".")
    assert done.returncode == 0, done.stdout


def test_types_hold():
    done = run("mypy", "--no-error-summary")
    assert done.returncode == 0, done.stdout


def test_imports_go_one_way():
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_only_the_edge_of_a_transaction_commits():
    """A commit in the middle of a step leaves half of its work when the step dies."""
    for path in SOURCES:
        if path.relative_to(ROOT) != Path("store/session.py"):
            assert ".commit()" not in path.read_text(), path


@pytest.mark.parametrize("package", ["core", "store", "search", "merging", "evaluation", "workers"])
def test_no_global_randomness(package):
    """A draw from global state depends on every draw before it, so nobody can rebuild it."""
    torch_draws = r"torch\.(rand|randn|bernoulli|manual_seed|randperm|randint)\b"
    banned = re.compile(
        rf"{torch_draws}|np\.random\.(?!Generator|RandomState|default_rng)|(?<!\w)random\.(seed|random|shuffle)\("
    )
    for path in (ROOT / package).rglob("*.py"):
        found = banned.search(path.read_text())
        assert not found, (path, found.group())


def test_no_pickle_and_no_remote_code():
    """Loading either runs a stranger's program."""
    for path in SOURCES:
        text = path.read_text()
        assert "trust_remote_code=True" not in text, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] + [getattr(node, "module", "") or ""]
                assert not {"pickle", "cloudpickle", "dill", "shelve"} & set(names), path
            if isinstance(node, ast.Attribute) and node.attr == "load" and isinstance(node.value, ast.Name):
                assert node.value.id != "torch", path


def test_modules_and_functions_stay_small():
    """Every giant began as `the one place for` something."""
    lengths = []
    for path in SOURCES:
        text = path.read_text()
        assert len(text.splitlines()) <= 450, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lengths.append((node.end_lineno or node.lineno) - node.lineno + 1)
    lengths.sort()
    assert lengths[len(lengths) // 2] <= 14
    assert lengths[int(len(lengths) * 0.9)] <= 45


def test_no_module_is_called_by_what_it_is_not():
    for path in SOURCES:
        assert path.stem not in ("utils", "util", "helpers", "common", "manager", "misc"), path
