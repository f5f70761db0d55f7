"""The runner's loop: for every line on standard input, run the best step there is and answer with one JSON line.

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
from typing import IO

from core.settings import Settings
from workers.lifetime import die_with_parent


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
    # Imported last: loading torch and its friends takes seconds, in which the parent may die and libraries may print.
    from workers.runner.bench import Bench
    from workers.runner.work import run_next

    bench = Bench(settings, owner=options.owner)
    for _line in sys.stdin:
        answers.write(json.dumps(run_next(bench)) + "\n")
        answers.flush()


def _private_stdout() -> IO[str]:
    """Standard output for answers alone: what libraries print goes to standard error."""
    kept = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return kept


if __name__ == "__main__":
    main()
