"""The runner's loop: for every line on standard input, run the best step there is and answer with one JSON line.

    (unasked)     {"ready": true} once everything is loaded and the device works, or {"ready": false, "error": "..."}
    go            claim and run one step -> {"ran": true, "step": "...", "kind": "run_trial"} or {"ran": false}
    end of file   leave

Standard output carries only answers; everything else goes to standard error.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any

from core.records import Device
from core.settings import Settings
from workers.lifetime import die_with_parent

if TYPE_CHECKING:
    from workers.runner.bench import Bench


def main() -> None:
    """Serve until standard input ends."""
    die_with_parent()
    answers = _private_stdout()
    arguments = argparse.ArgumentParser(prog="python -m workers.runner", description=__doc__)
    arguments.add_argument("--owner", required=True, help="the name under which steps are claimed")
    options = arguments.parse_args()
    settings = Settings()
    logging.basicConfig(
        level=settings.log_level, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )

    def answer(content: dict[str, Any]) -> None:
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    try:
        bench, run_next = _prepare(settings, options.owner)
    except Exception as error:
        answer({"ready": False, "error": f"{type(error).__name__}: {error}"})
        raise
    answer({"ready": True})
    for _line in sys.stdin:
        answer(run_next(bench))


def _prepare(settings: Settings, owner: str) -> tuple[Bench, Callable[[Bench], dict[str, Any]]]:
    """The workbench, on a device that works, and the verb.

    Imported here: loading torch and its friends takes seconds, in which the parent may die and libraries may print.
    """
    from workers.runner.bench import Bench
    from workers.runner.work import run_next

    bench = Bench(settings, owner=owner)
    if bench.kind is not Device.CPU:
        import torch

        # A device that cannot hold one number would fail every step that is claimed for it.
        torch.zeros(1, device=bench.device)
    return bench, run_next


def _private_stdout() -> IO[str]:
    """Standard output for answers alone: what libraries print goes to standard error."""
    kept = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return kept


if __name__ == "__main__":
    main()
