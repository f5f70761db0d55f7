"""`huarizo nursery`: a family of small models to try everything on."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from core.settings import Settings
from huarizo.cli.console import print_json, say
from huarizo.cli.relay import Json, relay
from huarizo.service.places import Places, code_environment


def grow(folder: Path | None, *, seed: int, smoke: bool = False, as_json: bool = False) -> None:
    """Grow into `folder` (default: the first model root's nursery), and say how jobs find it.

    Raises:
        HuarizoError: the growth failed.
    """
    places = Places.of(Settings())
    target = (folder or places.nursery).absolute()
    end = grown(target, seed, smoke=smoke)
    if as_json:
        print_json({name: value for name, value in end.items() if name != "event"})
        return
    say(f"nursery in {target}: models base, arc, wino, hella; tasks {', '.join(end['tasks'].values())}")
    if not any(target.is_relative_to(root) for root in places.model_roots):
        say(f"for jobs to find it: HUARIZO_MODEL_ROOTS={target.parent} HUARIZO_TASK_FOLDERS={target / 'tasks'}")


def grown(folder: Path, seed: int, *, smoke: bool = False) -> Json:
    """Grow in a process of its own, showing progress, unless the nursery is complete there; what it tells at the end.

    Raises:
        HuarizoError: the growth failed.
    """
    argv = [sys.executable, "-m", "huarizo.cli.growth", str(folder), str(seed), *(["--smoke"] if smoke else [])]
    return relay(argv, environment={**os.environ, **code_environment()}, title="nursery")
