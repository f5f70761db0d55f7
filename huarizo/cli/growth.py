"""`python -m huarizo.cli.growth FOLDER SEED [--smoke]`: grow the nursery, telling progress as `relay` reads it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from core.errors import HuarizoError


def main(folder: Path, seed: int, *, smoke: bool) -> None:
    """Grow; every event is one line on stdout."""
    from examples.nursery.grow import GrowthPlan, grow

    def progress(stage: str, done: float) -> None:
        tell("progress", doing=stage, done=done, total=1.0)

    try:
        family = grow(folder, seed=seed, plan=GrowthPlan.smoke() if smoke else None, progress=progress)
    except HuarizoError as error:
        tell("error", code=error.code, message=error.message)
        sys.exit(1)
    except OSError as error:
        tell("error", code="os_error", message=f"the nursery needs a folder to write to: {error}")
        sys.exit(1)
    tell("done", folder=str(family.folder), seed=family.seed, tasks=family.task_names)


def tell(event: str, **fields: Any) -> None:
    """Print one event."""
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), smoke=sys.argv[3:] == ["--smoke"])
