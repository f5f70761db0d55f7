"""The scoring engine against the stock harness.

    python -m benchmarks.scoring [--quick] [--json FILE]

Times are processor seconds on one thread, the best of several, both sides in turn in one process; the stock harness
runs at its best batch size. Everything is random or invented: models, documents and tokenizer.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.claims import Report, run


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        documents, few_shot, large_head, candidate, reuse: documents of each task in the parts of the table.
        repetitions: of each measurement, and one less to find the stock harness's best batch size.
    """

    documents: int
    few_shot: int
    large_head: int
    candidate: int
    reuse: int
    repetitions: int


FULL = Sizes(documents=60, few_shot=12, large_head=30, candidate=150, reuse=60, repetitions=3)
QUICK = Sizes(documents=30, few_shot=3, large_head=8, candidate=30, reuse=10, repetitions=2)
#: Documents of a task beyond twice those of a candidate: a search sees about half of all.
SPARE = 100


def measure(report: Report) -> None:
    """All that is claimed, in the order of the page's sections."""
    with TemporaryDirectory(prefix="huarizo-scoring-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # Root's database server runs as another user.
        # Before the libraries are loaded: none may ask the network, or find what it kept elsewhere.
        os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(folder / "hub")}
        _measure(report, folder, QUICK if report.quick else FULL)


def _measure(report: Report, folder: Path, sizes: Sizes) -> None:
    for chatty in ("alembic", "transformers"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    import torch
    from transformers.utils.logging import disable_progress_bar

    from benchmarks.scoring_candidate import report_candidates
    from benchmarks.scoring_gpu import report_gpu
    from benchmarks.scoring_official import report_outside
    from benchmarks.scoring_preparation import report_preparation, skip_preparation
    from benchmarks.scoring_reuse import report_reuse
    from benchmarks.scoring_setting import write_corpus
    from benchmarks.scoring_shelf import shelf
    from benchmarks.scoring_table import report_table

    torch.set_num_threads(1)
    disable_progress_bar()
    logging.getLogger("lm-eval").setLevel(logging.ERROR)  # Ours sets it anew as it is imported.
    official = write_corpus(folder / "official")
    small = official.smaller(folder / "small", 0.0)
    middle = official.smaller(folder / "middle", most=2 * sizes.candidate + SPARE)
    cache = folder / "cache"
    documents = (sizes.documents, sizes.few_shot, sizes.large_head)
    report_table(report, small, *documents, repetitions=sizes.repetitions)
    with shelf(folder / "servers") as shelves:
        report_candidates(report, middle, shelves, folder, documents=sizes.candidate, repetitions=sizes.repetitions)
        report_preparation(report, official.items, official.tokenizer_folder, cache, "0-shot")
        report_outside(report, official, cache, shelves, sizes.repetitions)
    if report.quick:
        skip_preparation(report, "few-shot", "the first preparation takes minutes")
    else:
        report_preparation(report, official.items, official.tokenizer_folder, cache, "few-shot")
    report_reuse(report, small, folder, documents=sizes.reuse, repetitions=sizes.repetitions)
    report_gpu(report, middle, sizes.repetitions)


if __name__ == "__main__":
    raise SystemExit(run("scoring", measure))
