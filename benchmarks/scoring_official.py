"""All the work on 14,857 documents that is no forward pass."""

from __future__ import annotations

from pathlib import Path

import torch

from benchmarks.claims import Report
from benchmarks.scoring_preparation import NAME, prepare_all
from benchmarks.scoring_setting import M15, Corpus, processor_clock, random_llama
from benchmarks.scoring_shelf import Forward, Shelf
from evaluation.scorer import Scorer


def report_outside(report: Report, corpus: Corpus, cache: Path, shelf: Shelf, repetitions: int) -> None:
    """Claim the time of everything but the forward pass: rows put together, outcomes judged, packed and committed."""
    prepared = prepare_all(corpus.items, corpus.tokenizer_folder, cache, "0-shot")
    scorer = Scorer(prepared, device=torch.device("cpu"), dtype=torch.float32)
    documents = {task: found.content.documents for task, found in prepared.tasks.items()}
    model = random_llama(M15)
    times = []
    for number in range(repetitions):
        with Forward(processor_clock, left_out=True).watched():
            begun = shelf.clock()
            shelf.score(model, scorer, f"nobody {number}", documents)
            times.append(shelf.clock() - begun)
    report.claim(f"{NAME}, 0-shot: work outside the forward pass", min(times), "s", 1.0, "lower")
