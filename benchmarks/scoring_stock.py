"""The stock harness on whole candidates: kept in memory, and from its command line."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lm_eval
import lm_eval.tasks
import pyarrow.parquet as pq
import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import PreTrainedModel

from benchmarks.items import OFFICIAL
from benchmarks.scoring_setting import MAX_LENGTH, Corpus, processor_clock, quietly
from benchmarks.scoring_table import BATCHES, batch_times, best_batch

#: What a candidate is scored on, and where the harness keeps these tasks.
TASKS = {"arc_challenge": "arc", "arc_easy": "arc", "winogrande": "winogrande", "hellaswag": "hellaswag"}
Results = dict[str, Any]


def chosen_documents(corpus: Corpus, numbers: Mapping[str, Sequence[int]], folder: Path) -> Path:
    """Data sets with these documents of each task alone, in this order, and the examples of all; their folder."""
    for task, wanted in numbers.items():
        shutil.copytree(corpus.items / task, folder / task)
        file = folder / task / f"{OFFICIAL[task][0]}.parquet"
        pq.write_table(pq.read_table(file).take(list(wanted)), file)
    return folder


class Stock:
    """The stock harness with its model, its `HFLM` and its index of these tasks made once.

    Args:
        items: its documents.
        corpus: gives the tokenizer.
        live: the model that weights are loaded into.
        folder: where checkpoints are written.
    """

    def __init__(self, items: Path, corpus: Corpus, live: PreTrainedModel, folder: Path) -> None:
        self._items, self._corpus, self._live, self._folder = items, corpus, live, folder
        root = Path(lm_eval.tasks.__file__).parent
        folders = [str(root / name) for name in sorted(set(TASKS.values()))]
        with quietly():
            # It gives its tokenizer a padding token.
            self._lm = HFLM(live, tokenizer=copy.deepcopy(corpus.tokenizer), batch_size=1, max_length=MAX_LENGTH)
            self._manager = TaskManager(include_path=folders, include_defaults=False)

    def load(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Put a candidate into the live model."""
        self._live.load_state_dict(weights)

    def resident(self, batches: Mapping[str, int], limit: int | None = None) -> Results:
        """The live model's results, each task in its own batches; the first `limit` documents of each."""
        found: Results = {}
        for task, batch in batches.items():
            self._lm.batch_size_per_gpu = batch
            with quietly():
                ran = lm_eval.simple_evaluate(
                    self._lm,
                    tasks=[self._task(task)],
                    limit=limit,
                    task_manager=self._manager,
                    log_samples=False,
                    verbosity="ERROR",
                )
            found |= ran["results"]
        return found

    def command_line(self, batch: int) -> Results:
        """What `python -m lm_eval` writes of the live model, which is saved for it first."""
        self._live.save_pretrained(self._folder / "model")
        self._corpus.tokenizer.save_pretrained(self._folder / "model")
        tasks, out = self._folder / "tasks", self._folder / "out"
        tasks.mkdir(exist_ok=True)
        for name in TASKS:
            # What is JSON is YAML, too.
            (tasks / f"{name}.yaml").write_text(json.dumps(self._task(name)), encoding="utf-8")
        shutil.rmtree(out, ignore_errors=True)
        options = {
            "model": "hf",
            "model_args": f"pretrained={self._folder / 'model'},dtype=float32,max_length={MAX_LENGTH}",
            "tasks": tasks,
            "device": "cpu",
            "batch_size": batch,
            "output_path": out,
        }
        command = [sys.executable, "-m", "lm_eval", *(str(part) for k, v in options.items() for part in (f"--{k}", v))]
        one_thread = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        done = subprocess.run(command, env=os.environ | one_thread, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"the harness's command line failed: {done.stderr[-2000:]}")
        (file,) = out.rglob("*.json")
        results: Results = json.loads(file.read_text(encoding="utf-8"))["results"]
        return results

    def _task(self, name: str) -> dict[str, Any]:
        files = {file.stem: str(file) for file in sorted((self._items / name).glob("*.parquet"))}
        data = {"dataset_path": "parquet", "dataset_name": None, "dataset_kwargs": {"data_files": files}}
        return {"task": name, **data}


@dataclass(frozen=True)
class Batches:
    """The stock harness's best batch sizes.

    Attributes:
        of_task: each task's own.
        of_all: the best for all tasks together, for a command line that takes one.
    """

    of_task: dict[str, int]
    of_all: int


def find_batches(stock: Stock, documents: int, repetitions: int) -> Batches:
    """Time the sizes on the first documents of every task."""

    def sampled(task: str, size: int) -> Results:
        return stock.resident({task: size}, documents)

    times = [batch_times(partial(sampled, task), BATCHES["cpu"], processor_clock, repetitions) for task in TASKS]
    tried = set.intersection(*(set(found) for found in times))
    of_task = {task: best_batch(found) for task, found in zip(TASKS, times, strict=True)}
    return Batches(of_task, best_batch({size: sum(found[size] for found in times) for size in tried}))
