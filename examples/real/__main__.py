"""`python -m examples.real --models FOLDER --datasets FOLDER`: real checkpoints, real items, lm-eval's stock tasks.

Trains two siblings of a small real Llama (about a minute), then searches over them and the original on ARC-Challenge,
Winogrande and HellaSwag, with a service of its own.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from examples.demo import VAR, search
from examples.real.siblings import grow
from huarizo.cli.console import remark
from huarizo.cli.failure import lines_of

JOB = Path(__file__).with_name("job.json")
TASKS = ("arc_challenge", "winogrande", "hellaswag")


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line, train, search; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m examples.real", description=__doc__)
    parser.add_argument("--models", type=Path, required=True, help="folder with the checkpoint of a small Llama")
    parser.add_argument("--base", default="stories260K-fp32", help="the checkpoint's folder in it (float32 weights)")
    parser.add_argument("--datasets", type=Path, required=True, help="folder laid out <name>/<split>.parquet")
    parser.add_argument("--trials", type=int, help="candidates to try (default: the job file's)")
    options = parser.parse_args(arguments)
    base, datasets = (options.models / options.base).resolve(), options.datasets.resolve()
    for wanted in (base / "config.json", *(datasets / task / "train.parquet" for task in TASKS[:2])):
        if not wanted.is_file():
            parser.error(f"{str(wanted)!r} is missing: name other folders")
    return _run(base, datasets, options.trials)


def _run(base: Path, datasets: Path, trials: int | None) -> int:
    job = json.loads(JOB.read_text())
    if trials is not None:
        job["budget"]["trials"] = trials
    folder = VAR / "real-search"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        grow(base, datasets, VAR / "real", progress=_tell)
        return search(job, folder, models=VAR, HUARIZO_DATASETS=str(datasets), HF_HUB_OFFLINE="1")
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        for line in lines_of(error):
            remark(line)
        return 1


def _tell(name: str, share: float) -> None:
    if round(share * 100) % 10 == 0:
        remark(f"training {name} {share:.0%}")


if __name__ == "__main__":
    sys.exit(main())
