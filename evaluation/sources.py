"""The text a registered task is made of: its YAML with what that includes, and the Python code its functions need."""

from __future__ import annotations

import ast
import hashlib
import importlib.machinery
import os
import re
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

#: Where the standard library and installed packages are, whose versions stand for them.
_INSTALLED = tuple(
    Path(path).resolve()
    for name, path in sysconfig.get_paths().items()
    if name in ("stdlib", "platstdlib", "purelib", "platlib")
)
#: Words of code that draws at random, or may have something drawn.
_CHANCE = re.compile(rb"rand|shuffl|sampl|permut|train_test_split|secrets|uuid")


class _Plain(yaml.SafeLoader):  # type: ignore[misc]
    """Reads a YAML file without running what its tags name."""


_Plain.add_multi_constructor("!", lambda loader, suffix, node: None)


def digest(file: Path, config: Any) -> str:
    """The sha256 over what a task's prompts and golds are made by, besides its documents.

    Covered, each by its text: the YAML file and every file of its chain of `include:`, as the harness finds them; all
    `*.py` files in the folders of these files and below; the modules of all functions and classes that the
    configuration holds, wherever they are; and what any of those modules imports by name (at its top or inside a
    function), from module to module, as far as it lies outside the standard library and installed packages.
    Not covered: modules that are imported under a computed name, compiled extensions, data that functions read while
    they make a prompt, and installed packages (the versions of those that make prompts are part of the cache's key).

    Args:
        file: the task's YAML.
        config: what the harness made of it, functions included: nested mappings and lists.
    """
    files = chain(file)
    beside = {path for each in files for path in each.parent.rglob("*.py")}
    return _hash([*files, *sorted(needed(beside | modules(config)))], files[0].parent)


def code_of(function: Any) -> str | None:
    """The sha256 over a function's module and what that imports, covered as in `digest`; None for installed code."""
    homes = {path for path in modules(function) if _is_own(path)}
    return _hash(sorted(needed(homes)), min(homes).parent) if homes else None


def _hash(files: list[Path], folder: Path) -> str:
    hashed = hashlib.sha256()
    for path in files:
        # Where the folder lies does not matter.
        hashed.update(os.path.relpath(path, folder).encode() + b"\0" + _bytes(path) + b"\0")
    return hashed.hexdigest()


def chain(file: Path) -> list[Path]:
    """A YAML file and the files it includes, and those include, in the order in which they are named; each once.

    A file that cannot be read as YAML includes none: it is an error where the task itself is read.
    """
    found: dict[Path, None] = {}
    waiting = [file.resolve()]
    while waiting:
        path = waiting.pop(0)
        if path not in found:
            found[path] = None
            waiting += _included(path)
    return list(found)


def _included(file: Path) -> list[Path]:
    try:
        said = yaml.load(_bytes(file), Loader=_Plain)
    except yaml.YAMLError:
        return []
    names = said.get("include") if isinstance(said, dict) else None
    # As the harness does it: a path that is there, else one beside the file.
    paths = [Path(str(name)) for name in (names if isinstance(names, list) else [names]) if name]
    return [(path if path.is_file() else file.parent / path).resolve() for path in paths]


def modules(config: Any) -> set[Path]:
    """The files of the functions and classes that a configuration holds."""
    if isinstance(config, Mapping):
        return {path for value in config.values() for path in modules(value)}
    if isinstance(config, list | tuple):
        return {path for value in config for path in modules(value)}
    file = _home(getattr(config, "func", config)) if callable(config) else None  # What a `functools.partial` calls.
    return {Path(file).resolve()} if file else set()


def may_draw(function: Any) -> bool:
    """Whether the code of a function, or what that imports, speaks of chance; a word too many costs time only."""
    return any(_CHANCE.search(_bytes(file)) for file in needed(modules(function)))


def _home(function: Any) -> str | None:
    # The harness loads a YAML's modules under names that nothing else knows, so a function's own globals tell.
    parts = [function, *vars(function).values()] if isinstance(function, type) else [function]
    known = next((part.__globals__ for part in parts if hasattr(part, "__globals__")), None)
    if known is None:
        known = getattr(sys.modules.get(getattr(function, "__module__", None) or ""), "__dict__", {})
    found: str | None = known.get("__file__")
    return found


def needed(files: set[Path]) -> set[Path]:
    """Python files and every file outside installed packages that they import, directly or not."""
    found: set[Path] = set()
    waiting = {file.resolve() for file in files}
    while waiting:
        file = waiting.pop()
        found.add(file)
        waiting |= {path for name in _imports(file) for path in _files(name, file)} - found
    return found


def _imports(file: Path) -> Iterator[str]:
    """Dotted names that a file imports, relative ones with their dots; of `from a import b`, both `a` and `a.b`."""
    try:
        tree = ast.parse(_bytes(file))
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            yield base
            yield from (f"{base}{'' if base.endswith('.') else '.'}{alias.name}" for alias in node.names)


def _files(name: str, importer: Path) -> Iterator[Path]:
    """The files of a module and of the packages it is in, where they are nobody's installed ones."""
    parts, level = name.lstrip(".").split("."), len(name) - len(name.lstrip("."))
    if level and parts[0]:
        yield from _descend(parts, [str(importer.parents[level - 1])], lambda _: None)
    elif not level and parts[0] not in sys.stdlib_module_names:
        yield from _descend(parts, None, sys.modules.get)


def _descend(parts: list[str], places: list[str] | None, loaded: Callable[[str], Any]) -> Iterator[Path]:
    # Looking for a module the usual way would import the packages it is in.
    for depth, part in enumerate(parts, 1):
        module = loaded(".".join(parts[:depth]))
        origin, places = _looked_for(part, places) if module is None else _found(module)
        if origin is not None and origin.suffix == ".py" and _is_own(origin):
            yield origin.resolve()
        if not places:
            return


def _found(module: Any) -> tuple[Path | None, list[str]]:
    file = getattr(module, "__file__", None)
    return (Path(file) if file else None), [str(place) for place in getattr(module, "__path__", ())]


def _looked_for(part: str, places: list[str] | None) -> tuple[Path | None, list[str]]:
    try:
        spec = importlib.machinery.PathFinder.find_spec(part, places)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        return None, []
    origin = Path(spec.origin) if spec.has_location and spec.origin else None
    return origin, [str(place) for place in spec.submodule_search_locations or ()]


def _is_own(file: Path) -> bool:
    resolved = file.resolve()
    return resolved.is_file() and not any(resolved.is_relative_to(place) for place in _INSTALLED)


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""
