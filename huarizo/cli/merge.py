"""`huarizo merge`: one recipe into one checkpoint, on this machine, without any service."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from core.errors import ConflictError, InvalidInputError
from core.mergekit import MERGES
from core.settings import Settings
from huarizo.cli.console import print_json, remark, say
from huarizo.cli.relay import relay
from huarizo.service.places import Places, code_environment

_SIZE = re.compile(r"^\s*(?P<number>[0-9]+(\.[0-9]+)?)\s*(?P<unit>[KMGT]?)(?P<binary>i?)B?\s*$", re.IGNORECASE)
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


@dataclass(frozen=True)
class Options:
    """What the command line says besides recipe and target; sizes are in bytes."""

    form: str = "auto"
    save_dtype: str | None = None
    seed: int | None = None
    max_memory: int | None = None
    shard_size: int | None = None
    statistics: Path | None = None
    generators: tuple[Path, ...] = ()

    def words(self) -> list[str]:
        """As the merging process takes them."""
        given = {
            "--format": self.form,
            "--save-dtype": self.save_dtype,
            "--seed": self.seed,
            "--max-memory": self.max_memory,
            "--shard-size": self.shard_size,
            "--statistics": None if self.statistics is None else self.statistics.absolute(),
        }
        words = [word for name, value in given.items() if value is not None for word in (name, str(value))]
        return words + [word for folder in self.generators for word in ("--generator", str(folder.absolute()))]


def merge(recipe: Path, target: Path, options: Options | None = None, *, as_json: bool = False) -> None:
    """Run the merging room in a process of its own.

    Raises:
        ConflictError: `target` holds something already.
        HuarizoError: what the merge itself reports.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConflictError(f"a checkpoint goes into a new or empty folder, but {str(target)!r} is not: name another")
    words = [str(recipe.absolute()), str(target.absolute()), "--json-progress"]
    end = _run([*words, *(options or Options()).words()], recipe)
    if as_json:
        print_json({**end, "folder": str(target.absolute())})
        return
    _tell_notes(end)
    say(f"{target}: weights {end['weights_digest']}")


def dry_run(recipe: Path, options: Options | None = None, *, as_json: bool = False) -> int:
    """Tell what a merge would make and take, without reading a weight; errors as in `merge`.

    Returns:
        The exit status: 1 where the merge would be refused for its memory.
    """
    options = options or Options()
    end = _run([str(recipe.absolute()), "--dry-run", *options.words()], recipe)
    refused = options.max_memory is not None and end["peak_memory"] > options.max_memory
    if as_json:
        print_json(end)
        return int(refused)
    methods = ", ".join(f"{method} {count}" for method, count in sorted(end["methods"].items()))
    say(f"models       {', '.join(end['models'])}")
    say(f"layers       {end['layers']}")
    say(f"tensors      {end['tensors']} ({methods})")
    say(f"parameters   {end['parameters']:,}")
    say(f"weights      {size_text(end['bytes'])} of {end['save_dtype']} in {end['shards']} file(s)")
    say(f"peak memory  {size_text(end['peak_memory'])} ({end['peak_tensor']})")
    if options.max_memory is not None and refused:
        say(f"             more than --max-memory {size_text(options.max_memory)}: the merge would be refused")
    _tell_notes(end)
    return int(refused)


def to_mergekit(recipe: Path, options: Options | None = None, *, as_json: bool = False) -> None:
    """Print the recipe as a mergekit configuration; errors as in `merge`."""
    end = _run([str(recipe.absolute()), "--to-mergekit", *(options or Options()).words()], recipe)
    documents = end["documents"]
    if as_json:
        print_json({"config": documents[0] if len(documents) == 1 else {MERGES: documents}, "notes": end["notes"]})
        return
    _tell_notes(end)
    sys.stdout.write(yaml.safe_dump_all(documents, sort_keys=False, default_flow_style=None, allow_unicode=True))


def size_of(text: str) -> int:
    """Bytes of a size as people write it: 8GiB, 500MB, 1.5G (of 2**30), 1000000.

    Raises:
        InvalidInputError: it is none.
    """
    found = _SIZE.match(text)
    if found is None:
        raise InvalidInputError(f"a size is a number with KiB, MiB, GiB, KB, MB or GB, but got {text!r}: write 8GiB")
    unit = found["unit"].upper()
    decimal = bool(unit) and not found["binary"] and text.strip().upper().endswith("B")
    return int(float(found["number"]) * (1000 if decimal else 1024) ** _POWERS[unit])


def size_text(size: int) -> str:
    """A size for people."""
    for unit, power in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if size >= 1 << power:
            return f"{size / (1 << power):.1f} {unit}"
    return f"{size} bytes"


def _run(words: Sequence[str], recipe: Path) -> dict[str, Any]:
    argv = [sys.executable, "-m", "workers.runner.merge", *words]
    end = relay(argv, environment=_environment(recipe), title="merge")
    return {name: value for name, value in end.items() if name != "event"}


def _tell_notes(end: dict[str, Any]) -> None:
    for note in end.get("notes", ()):
        remark(f"note: {note}")


def _environment(recipe: Path) -> dict[str, str]:
    """Whoever merges here may read here: the working folder and the recipe's folder are model roots, too."""
    places = Places.of(Settings())
    roots = dict.fromkeys([Path.cwd(), recipe.absolute().parent, *places.model_roots])
    return {
        **os.environ,
        **code_environment(),
        **places.environment(),
        "HUARIZO_MODEL_ROOTS": os.pathsep.join(map(str, roots)),
    }
