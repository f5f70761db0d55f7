"""Many simulated searches in a few processes, each computed once."""

from __future__ import annotations

import contextlib
import hashlib
import json
import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from unittest import mock

from benchmarks.claims import ROOT
from benchmarks.search_driver import Advice, Search, Setting
from benchmarks.search_world import World, mixed, numeric
from core.jobs import Budget, Racing
from search.auto import choose

#: Under this variable, a folder for finished searches: a run that broke off goes on where it was.
KEEP = "HUARIZO_BENCHMARK_RUNS"
PROCESSES = 2
#: The tool that others are compared with.
BASELINE = "mergekit-evolve"
REPORTED = (5.0, 10.0, 20.0, 50.0, 100.0)


class Case(NamedTuple):
    """One search.

    Attributes:
        world: number of parameters; 0 is the mixed world.
        strategy: by name, `auto` included; `full random` is uniform draws, each scored in full.
        seed: of the world and of the study.
        build: items' worth of time that building a candidate takes.
        parallel: workers.
        until: the last checkpoint, in full evaluations.
    """

    world: int
    strategy: str
    seed: int
    build: int = 0
    parallel: int = 1
    until: float = 100.0


def checkpoints(until: float, *, fine: bool) -> list[float]:
    """The round ones that are reported; fine ones also from 4 full evaluations on in steps of 6 %."""
    steps = (4.0 * 1.06**k for k in range(60)) if fine else ()
    return sorted({step for step in (*steps, *REPORTED, until) if step <= until})


def search(case: Case) -> list[Advice]:
    """Run one search; its advice at every checkpoint."""
    world = mixed(case.seed) if case.world == 0 else numeric(case.seed, case.world)
    return Search(world, _setting(case, world), case.seed).run(checkpoints(case.until, fine=case.strategy == "auto"))


def _setting(case: Case, world: World) -> Setting:
    if case.strategy == "full random":
        return Setting("random", case.build, case.parallel, bare=True)
    if case.strategy == BASELINE:
        # As the tool itself: nothing waits, so that a generation is told before the next is drawn.
        return Setting(BASELINE, case.build, case.parallel, bare=True, ahead=0)
    strategy = case.strategy
    if strategy == "auto":
        strategy, _ = choose(world.space, case.parallel, Budget(item_evaluations=300_000))
    return Setting(strategy, case.build, case.parallel, racing=Racing())


def search_all(cases: Sequence[Case]) -> dict[Case, list[Advice]]:
    """The advice of every case, computed in parallel; what takes long is begun first."""
    found = {case: kept for case in dict.fromkeys(cases) if (kept := _kept(case)) is not None}
    missing = sorted(set(cases) - set(found), key=lambda case: (-case.until * (case.world or 8), case))
    begun = time.monotonic()
    for done, (case, advice) in enumerate(_computed(missing), start=1):
        found[case] = advice
        _keep(case, advice)
        if done % 25 == 0 or done == len(missing):
            print(f"  {done} of {len(missing)} searches, {time.monotonic() - begun:.0f} s", flush=True)
    return {case: found[case] for case in cases}


def _computed(cases: Sequence[Case]) -> Iterator[tuple[Case, list[Advice]]]:
    """In fresh processes with one thread each: threads that wait for one another cost more than they bring."""
    if not cases:
        return
    with mock.patch.dict(os.environ, {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}):
        pool = multiprocessing.get_context("spawn").Pool(PROCESSES)
    with contextlib.closing(pool):
        yield from pool.imap_unordered(_named, cases, chunksize=1)


def _named(case: Case) -> tuple[Case, list[Advice]]:
    return case, search(case)


# -- what is kept ------------------------------------------------------------------------------------------------------


def _place(case: Case) -> Path | None:
    folder = os.environ.get(KEEP)
    name = "-".join(str(part).replace(" ", "_") for part in case) + ".json"
    return Path(folder) / _code() / name if folder else None


def _code() -> str:
    """A digest over whatever decides a search: results of other code are never taken for this one's."""
    own = [ROOT / "benchmarks" / f"search_{part}.py" for part in ("world", "driver", "runs")]
    digest = hashlib.sha256()
    for file in [*own, ROOT / "core" / "rungs.py", *sorted((ROOT / "search").rglob("*.py"))]:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _kept(case: Case) -> list[Advice] | None:
    place = _place(case)
    if place is None or not place.exists():
        return None
    return [Advice(**entry) for entry in json.loads(place.read_text(encoding="utf-8"))]


def _keep(case: Case, advice: Sequence[Advice]) -> None:
    place = _place(case)
    if place is not None:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps([vars(entry) for entry in advice]), encoding="utf-8")
