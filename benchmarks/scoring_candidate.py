"""A whole candidate, from weights in memory to numbers in Postgres, against the stock harness."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import lm_eval
import lm_eval.tasks
import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import PreTrainedModel

from benchmarks.claims import Report
from benchmarks.scoring_family import Family
from benchmarks.scoring_setting import (
    M15,
    MAX_LENGTH,
    NO_SHOTS,
    Corpus,
    fastest,
    processor_clock,
    quietly,
    random_llama,
)
from benchmarks.scoring_shelf import Forward, Shelf
from benchmarks.scoring_table import BATCHES, best_batch
from core.statistics import mean
from evaluation.scorer import Scorer

#: What a candidate is scored on, and where the harness keeps these tasks.
TASKS = {"arc_challenge": "arc", "arc_easy": "arc", "winogrande": "winogrande", "hellaswag": "hellaswag"}
#: Documents of each task on which the stock harness's best batch size is found.
SAMPLE = 8


@dataclass(frozen=True)
class Stock:
    """The stock harness as it is used without us.

    Attributes:
        corpus: the documents.
        documents: of each task.
        batch: its batch size.
        live: a model that weights are loaded into.
        folder: where checkpoints are written.
    """

    corpus: Corpus
    documents: int
    batch: int
    live: PreTrainedModel
    folder: Path

    def resident(self, weights: Mapping[str, torch.Tensor]) -> dict[str, Any]:
        """Weights into the live model, tasks without the harness's index of all its tasks."""
        self.live.load_state_dict(weights)
        tokenizer = copy.deepcopy(self.corpus.tokenizer)
        with quietly():
            lm = HFLM(self.live, tokenizer=tokenizer, batch_size=self.batch, max_length=MAX_LENGTH)
            root = Path(lm_eval.tasks.__file__).parent
            folders = [str(root / name) for name in sorted(set(TASKS.values()))]
            manager = TaskManager(include_path=folders, include_defaults=False)
            return self._evaluated(lm, manager)

    def command_line(self, weights: Mapping[str, torch.Tensor]) -> dict[str, Any]:
        """A checkpoint on disk, read back, and all tasks known, as its command line does it (in one process)."""
        self.live.load_state_dict(weights)
        self.live.save_pretrained(self.folder)
        self.corpus.tokenizer.save_pretrained(self.folder)
        with quietly():
            options = f"pretrained={self.folder},dtype=float32,max_length={MAX_LENGTH}"
            return self._evaluated("hf", TaskManager(), model_args=options, device="cpu", batch_size=self.batch)

    def _evaluated(self, model: Any, manager: TaskManager, **options: Any) -> dict[str, Any]:
        found = lm_eval.simple_evaluate(
            model,
            tasks=[self._task(name) for name in TASKS],
            limit=self.documents,
            task_manager=manager,
            log_samples=False,
            verbosity="ERROR",
            **options,
        )
        results: dict[str, Any] = found["results"]
        return results

    def _task(self, name: str) -> dict[str, Any]:
        files = {file.stem: str(file) for file in sorted((self.corpus.items / name).glob("*.parquet"))}
        data = {"dataset_path": "parquet", "dataset_name": None, "dataset_kwargs": {"data_files": files}}
        return {"task": name, **data}


@dataclass(frozen=True)
class Race:
    """One candidate after the other, scored by us and by the stock harness in both ways.

    Attributes:
        family: the parents.
        scorer: ours.
        shelf: where our numbers go.
        stock: the harness.
    """

    family: Family
    scorer: Scorer
    shelf: Shelf
    stock: Stock

    def run(self, number: int) -> tuple[dict[str, float], float, int]:
        """Processor seconds of each, the part of ours that is not the forward pass, and tasks with equal numbers."""
        recipe = self.family.mixture((number + 1) / 100)
        built = self.family.build(recipe)
        weights = {name: tensor.clone() for name, tensor in built.tensors.items()}
        forward = Forward(processor_clock)
        begun = self.shelf.clock()
        with forward.watched():
            documents = dict.fromkeys(TASKS, self.stock.documents)
            found = self.shelf.score(built.model, self.scorer, recipe.digest(), documents)
        ours = self.shelf.clock() - begun
        theirs: dict[str, Any] = {}

        def keep(name: str) -> None:
            theirs[name] = getattr(self.stock, name)(weights)

        ways = ("resident", "command_line")
        times = fastest({name: partial(keep, name) for name in ways}, 1, processor_clock)
        equal = sum(
            all(mean(found[task].correct) == theirs[name][task][f"{self._metric(task)},none"] for name in ways)
            for task in TASKS
        )
        return {**times, "ours": ours}, 1 - forward.seconds / ours, equal

    def _metric(self, task: str) -> str:
        return self.scorer.prepared.tasks[task].spec.metric_name


def report_candidates(
    report: Report, corpus: Corpus, shelf: Shelf, folder: Path, *, documents: int, repetitions: int
) -> None:
    """Claim how much faster a whole candidate is, and how little of it is not the forward pass.

    Args:
        report: takes the claims.
        corpus: the documents.
        shelf: where our numbers go.
        folder: for checkpoints.
        documents: of each task.
        repetitions: candidates; two at least, for the first one fills the harness's caches.
    """
    family = Family(folder / "family", corpus, M15, ("a", "b"))
    prepared = corpus.prepared(list(TASKS), NO_SHOTS)
    scorer = Scorer(prepared, device=torch.device("cpu"), dtype=torch.float32)
    stock = Stock(corpus, documents, 1, random_llama(M15), folder / "stock")
    stock = replace(stock, batch=_best_batch(stock, repetitions))
    runs = [Race(family, scorer, shelf, stock).run(number) for number in range(repetitions)]
    best = {name: min(times[name] for times, _, _ in runs) for name in ("resident", "command_line", "ours")}
    name = f"m15, whole candidate, 0-shot, {len(TASKS)} tasks"
    report.claim(f"{name}: speed-up over the resident stock harness", best["resident"] / best["ours"], "times", 2.7)
    report.claim(f"{name}: speed-up over its command line", best["command_line"] / best["ours"], "times", 3.0)
    outside = min(share for _, share, _ in runs)
    report.claim(f"{name}: work outside the forward pass", outside, "of 1", 0.04, "lower")
    equal = min(tasks for _, _, tasks in runs)
    report.claim(f"{name}: tasks with the harness's own number", equal, "tasks", len(TASKS))
    report.note(
        f"whole candidate: {documents} documents each of {', '.join(TASKS)}; the harness in batches of {stock.batch}; "
        f"ours {best['ours']:.2f} s of processor time, the database server's included"
    )


def _best_batch(stock: Stock, repetitions: int) -> int:
    weights = stock.live.state_dict()

    def sampled(batch: int) -> None:
        replace(stock, batch=batch, documents=SAMPLE).resident(weights)

    return best_batch(sampled, BATCHES["cpu"], processor_clock, repetitions - 1)
