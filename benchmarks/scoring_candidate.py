"""A whole candidate, from weights in memory to numbers in Postgres, against the stock harness."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks.claims import Report
from benchmarks.scoring_family import write_family
from benchmarks.scoring_runner import Finished, Run
from benchmarks.scoring_setting import M15, NO_SHOTS, Corpus, fastest, processor_clock, random_llama
from benchmarks.scoring_shelf import Shelf
from benchmarks.scoring_stock import TASKS, Batches, Results, Stock, chosen_documents, find_batches
from core.objective import TaskSpec
from core.statistics import mean

#: Documents of each task on which the stock harness's best batch sizes are found.
SAMPLE = 16
WAYS = ("resident", "command_line")
#: Documents of each task that no candidate is scored on here: a job must have some.
UNSEEN = 16


def report_candidates(
    report: Report, corpus: Corpus, shelf: Shelf, folder: Path, *, documents: int, repetitions: int
) -> None:
    """Claim how much faster a whole candidate is, and how little of it is not the forward pass.

    Args:
        report: takes the claims.
        corpus: the documents, more than twice as many of each task as are scored.
        shelf: where our numbers go.
        folder: for checkpoints.
        documents: of each task.
        repetitions: candidates that are timed; one more is scored before, and fills everybody's caches.
    """
    write_family(folder / "family", corpus, M15, ("a", "b"))
    sided = _sided(corpus, folder / "sided", documents)
    run = Run(shelf, sided, folder, tasks=tuple(TASKS), documents=documents, trials=repetitions + 1)
    try:
        run.next()
        items = chosen_documents(sided, run.numbers(), folder / "chosen")
        stock = Stock(items, corpus, random_llama(M15), folder / "stock")
        batches = find_batches(stock, min(SAMPLE, documents // 2), max(1, repetitions - 1))
        runs = [_race(run, stock, batches) for _ in range(repetitions)]
    finally:
        run.close()
    best = {name: min(times[name] for times, _, _ in runs) for name in (*WAYS, "ours")}
    name = f"m15, whole candidate, 0-shot, {len(TASKS)} tasks"
    report.claim(f"{name}: speed-up over the resident stock harness", best["resident"] / best["ours"], "times", 2.7)
    report.claim(f"{name}: speed-up over its command line", best["command_line"] / best["ours"], "times", 3.0)
    outside = min(share for _, share, _ in runs)
    report.claim(f"{name}: work outside the forward pass", outside, "of 1", 0.04, "lower")
    equal = min(tasks for _, _, tasks in runs)
    report.claim(f"{name}: tasks with the harness's own number", equal, "tasks", len(TASKS))
    told = ", ".join(f"{size} for {task}" for task, size in batches.of_task.items())
    report.note(
        f"whole candidate: {documents} documents of each task, scored as a job's trial is; the resident harness in "
        f"batches of {told}, its command line of {batches.of_all}; processor seconds: ours {best['ours']:.2f} with the "
        f"database server's, the resident harness {best['resident']:.2f}, its command line {best['command_line']:.2f} "
        "with its start and the checkpoint it is given"
    )


def _sided(corpus: Corpus, folder: Path, documents: int) -> Corpus:
    """Documents of which a search sees so many of each task, and a few that it does not see."""
    sides = {name: task.content.side for name, task in corpus.prepared(list(TASKS), NO_SHOTS).tasks.items()}
    numbers = {name: (*side("search")[:documents], *side("heldout")[:UNSEEN]) for name, side in sides.items()}
    return replace(corpus, items=chosen_documents(corpus, numbers, folder))


def _race(run: Run, stock: Stock, batches: Batches) -> tuple[dict[str, float], float, int]:
    """Processor seconds of each, the part of ours that is not the forward pass, and tasks with equal numbers."""
    ours = run.next()
    stock.load(ours.weights)
    theirs: dict[str, Results] = {}

    def keep(name: str, evaluate: Callable[[], Results]) -> None:
        theirs[name] = evaluate()

    evaluations = (partial(stock.resident, batches.of_task), partial(stock.command_line, batches.of_all))
    ways = {name: partial(keep, name, evaluate) for name, evaluate in zip(WAYS, evaluations, strict=True)}
    times = fastest(ways, 1, _with_children)
    return {**times, "ours": ours.seconds}, 1 - ours.forward / ours.seconds, _equal(ours, theirs)


def _with_children() -> float:
    """Processor seconds of this process and of those that it started and that have ended."""
    times = os.times()
    return processor_clock() + times.children_user + times.children_system


def _equal(ours: Finished, theirs: dict[str, Results]) -> int:
    metric = {task: TaskSpec(task=task).metric_name for task in TASKS}
    return sum(
        all(mean(ours.found[task].correct) == theirs[name][task][f"{metric[task]},none"] for name in WAYS)
        for task in TASKS
    )
