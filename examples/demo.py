"""`python -m examples.demo`: the whole service once, on the nursery, from nothing to a proved checkpoint.

Grows the family (once), starts a service of its own on free ports, searches, shows progress, prints parents and winner
side by side, saves the winner's checkpoint, writes `report.json`, and stops everything it started.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from core.errors import ServiceUnavailableError
from core.states import JobState
from huarizo.cli import tables, verdict
from huarizo.cli.console import err, out, remark, say
from huarizo.cli.export import download
from huarizo.cli.failure import lines_of
from huarizo.cli.jobs import gather
from huarizo.cli.nursery import grown
from huarizo.cli.watch import follow
from huarizo.client import Client
from huarizo.embedded import lifeline
from huarizo.embedded.places import data_home
from huarizo.service import address
from huarizo.service.places import CODE, code_environment

VAR = CODE / "var"
JOB = CODE / "examples" / "nursery" / "job.json"
NURSERY_SEED = 7
SMOKE_TRIALS = 4
START_SECONDS = 300.0
STOP_SECONDS = 90.0


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line, run, and tell failures in one line; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m examples.demo", description=__doc__)
    parser.add_argument("--seed", type=int, help="seed of the search (default: the job file's)")
    parser.add_argument("--trials", type=int, help="candidates to try (default: the job file's)")
    parser.add_argument("--smoke", action="store_true", help="tiny models in seconds: everything runs, little is found")
    parser.add_argument("--folder", type=Path, help="where report, log and checkpoint go; the nursery goes beside it")
    options = parser.parse_args(arguments)
    folder = options.folder or (VAR / "smoke" / "demo" if options.smoke else VAR / "demo")
    trials = options.trials or (SMOKE_TRIALS if options.smoke else None)
    try:
        return demonstrate(job_of(options.seed, trials), folder.absolute(), smoke=options.smoke)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        for line in lines_of(error):
            remark(line)
        return 1


def job_of(seed: int | None, trials: int | None) -> dict[str, Any]:
    """The nursery's job, changed where asked."""
    job: dict[str, Any] = json.loads(JOB.read_text())
    if seed is not None:
        job["seed"] = seed
    if trials is not None:
        job["budget"] = {**job["budget"], "trials": trials}
    return job


def demonstrate(job: dict[str, Any], folder: Path, *, smoke: bool) -> int:
    """Grow, serve, search, report; 0 if the job succeeded."""
    folder.mkdir(parents=True, exist_ok=True)
    nursery = folder.parent / "nursery"
    grown(nursery, NURSERY_SEED, smoke=smoke)
    return search(job, folder, models=folder.parent, HUARIZO_TASK_FOLDERS=str(nursery / "tasks"))


def search(job: dict[str, Any], folder: Path, *, models: Path, **environment: str) -> int:
    """Serve, search, report; 0 if the job succeeded.

    Args:
        job: the job to post.
        folder: where report, log and checkpoint go; its name names the service's data folder.
        models: the folder that `local:` references start from.
        environment: settings of the service.
    """
    with serving(folder, HUARIZO_MODEL_ROOTS=str(models), **environment) as url, Client(url) as client:
        remark(f"dashboard {url}")
        posted = client.submit(job)
        ended = follow(client, posted["id"], err())
        report = gather(client, ended)
        checkpoint = keep(client, report, folder / "checkpoint")
    (folder / "report.json").write_text(json.dumps(told(report, checkpoint), indent=2) + "\n")
    if report.verdict is not None:
        out().print(verdict.shown(report))
    if checkpoint is not None:
        say(f"checkpoint {checkpoint}")
    say(f"report {folder / 'report.json'}")
    say(tables.ending(ended))
    return 0 if ended["state"] == JobState.SUCCEEDED else 1


@contextmanager
def serving(folder: Path, **settings: str) -> Iterator[str]:
    """A service of the example's own, apart from one that may run over this checkout; yields its address."""
    home = data_home() / folder.name
    environment = {
        **os.environ,
        **code_environment(),
        "HUARIZO_HOME": str(home),
        "HUARIZO_PORT": "0",
        **settings,
    }
    log = folder / "up.log"
    with log.open("w") as file:
        argv = [sys.executable, "-m", "huarizo", "up"]
        process = lifeline.popen(argv, env=environment, cwd=CODE, stdout=file, stderr=subprocess.STDOUT)
    try:
        yield wait_until_ready(process, home, log)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until_ready(process: subprocess.Popen[Any], home: Path, log: Path) -> str:
    """The service's address, once it is ready.

    Raises:
        ServiceUnavailableError: it ended or took too long; the message ends with what it said last.
    """
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        there = address.running(home)
        if there is not None and there.ready and there.pid == process.pid:  # not another demo's
            return there.url
        time.sleep(0.1)
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-8:])
    raise ServiceUnavailableError(f"a service must be ready within {START_SECONDS:g} s; {str(log)!r} ends with\n{tail}")


def keep(client: Client, report: verdict.Report, folder: Path) -> Path | None:
    """Save the winner's checkpoint in place of an earlier run's, every hash checked; None if there is none."""
    shutil.rmtree(folder, ignore_errors=True)
    if report.artifact is None:
        return None
    download(client, report.artifact, folder)
    return folder


def told(report: verdict.Report, checkpoint: Path | None) -> dict[str, Any]:
    """The report as JSON: scores as shares, the gain in percentage points."""
    winner, gain = report.winner, report.gain
    return {
        "parents": [
            {"name": row.name, "scores": row.scores, "macro_heldout": row.macro_heldout} for row in report.parents
        ],
        "winner": winner and {"recipe": winner.recipe, "scores": winner.scores, "macro_heldout": winner.macro_heldout},
        "gain_heldout": gain and {"points": gain.points, "low": gain.low, "high": gain.high, "p": gain.p},
        "trials": report.trials,
        "seconds": report.seconds,
        "artifact": None if checkpoint is None else str(checkpoint),
    }


if __name__ == "__main__":
    sys.exit(main())
