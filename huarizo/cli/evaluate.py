"""`huarizo evaluate`: one checkpoint's scores on whole tasks, on this machine, without any service."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from core.protocols import evaluation_of
from core.settings import Settings
from huarizo.cli.console import out, print_json, remark, say
from huarizo.cli.relay import relay
from huarizo.service.places import Places, code_environment

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Options:
    """What the command line says besides the model."""

    protocol: str | None = None
    tasks: str | None = None
    num_fewshot: int | None = None
    limit: int | None = None
    device: str | None = None
    dtype: str | None = None
    batch_tokens: int | None = None
    output: Path | None = None
    log_samples: Path | None = None
    check_precision: int | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The tasks that were named."""
        return tuple(name.strip() for name in (self.tasks or "").split(",") if name.strip())

    def words(self) -> list[str]:
        """As the evaluating process takes them."""
        given = {
            "--protocol": self.protocol,
            "--tasks": ",".join(self.names) or None,
            "--num-fewshot": self.num_fewshot,
            "--limit": self.limit,
            "--device": self.device,
            "--dtype": self.dtype,
            "--batch-tokens": self.batch_tokens,
            "--check-precision": self.check_precision,
            "--output": None if self.output is None else self.output.absolute(),
            "--log-samples": None if self.log_samples is None else self.log_samples.absolute(),
        }
        return [word for name, value in given.items() if value is not None for word in (name, str(value))]


def evaluate(model: str, options: Options, *, as_json: bool = False) -> None:
    """Evaluate in a process of its own, and print a table.

    Raises:
        InvalidInputError: protocol, tasks and shots do not go together.
        HuarizoError: what the evaluation itself reports.
    """
    # Said at once: the process takes seconds to load its libraries.
    evaluation_of(options.protocol, options.names, options.num_fewshot)
    argv = [sys.executable, "-m", "workers.runner.evaluate", model, *options.words()]
    end = relay(argv, environment=_environment(), title="evaluate")
    report = {name: value for name, value in end.items() if name != "event"}
    if as_json:
        print_json(report)
        return
    for note in report["notes"]:
        remark(f"note: {note}")
    _tell(report)


def _tell(report: Json) -> None:
    model, protocol = report["model"], report["protocol"]["name"]
    cut = "" if report["full"] else f"   NOT A FULL SCORE (--limit {report['limit']})"
    say(f"{model['ref']}   protocol {protocol}{cut}")
    out().print(table(report["scores"]))
    if report["macro"] is not None:
        say(f"mean of the {report['macro']['tasks']} scores marked *   {_number(report['macro'])}")
    say(f"weights {model['weights_digest']}")
    rate = f"{report['items']:,} items in {report['scoring_seconds']:.1f} s, {report['items_per_second']:.1f} items/s"
    say(f"{rate}, {report['dtype']} on {report['device']}")
    if report.get("output"):
        say(f"report {report['output']}")


def table(scores: Sequence[Json]) -> Table:
    """One line per number; those that make the protocol's mean carry a star."""
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("task", "shots", "metric", "value ± stderr", "n", "fingerprint"):
        grid.add_column(column, overflow="fold")
    for score in scores:
        way = "" if score["filter"] == "none" else f" ({score['filter']})"
        n = f"{score['n']:,}" if score["n"] == score["documents"] else f"{score['n']:,} of {score['documents']:,}"
        cells = (
            score["task"] + (f" ({score['tasks']} tasks)" if score["tasks"] else ""),
            str(score["num_fewshot"]),
            f"{score['metric']}{way}{' *' if score['in_macro'] else ''}",
            _number(score),
            n,
            score["fingerprint"][:12],
        )
        grid.add_row(*map(Text, cells))
    return grid


def _number(score: Json) -> str:
    if score["value"] is None:
        return "not a number"
    return f"{score['value']:.4f}" + ("" if score["stderr"] is None else f" ± {score['stderr']:.4f}")


def _environment() -> dict[str, str]:
    """Whoever evaluates here may read here: the working folder is a model root, too."""
    places = Places.of(Settings())
    roots = dict.fromkeys([Path.cwd(), *places.model_roots])
    return {
        # Threads that spin while they wait starve one another wherever cores are shared.
        "OMP_WAIT_POLICY": "PASSIVE",
        **os.environ,
        **code_environment(),
        **places.environment(),
        "HUARIZO_MODEL_ROOTS": os.pathsep.join(map(str, roots)),
    }
