"""One task against the stock harness: speed-up, and how much of what arithmetic allows it is."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM
from transformers import PreTrainedModel

from benchmarks.claims import Report
from benchmarks.items import SHOTS
from benchmarks.scoring_flops import Shape, least_flops, stock_flops
from benchmarks.scoring_setting import (
    LARGE_VOCABULARY,
    M15,
    MAX_LENGTH,
    NO_SHOTS,
    Clock,
    Corpus,
    fastest,
    processor_clock,
    quietly,
    random_llama,
)
from evaluation.catalog import load_task, without_progress_bars
from evaluation.encoding import Encoder
from evaluation.prepare import Prepared
from evaluation.scorer import Scorer

#: The part of the limit that every line is to reach.
OF_LIMIT = 0.9
#: What is scored under the large head.
LARGE_HEAD_TASKS = ("arc_challenge", "hellaswag")
#: Batches of the stock harness that are tried; the best one is the baseline. (Its own `auto` takes 64 on every CPU,
#: after five passes over 64 texts of the greatest length.)
BATCHES = {"cpu": (1, 2, 4, 8, 16, 32, 64), "cuda": (16, 32, 64, 128, 256)}
#: How much slower two batch sizes must be before larger ones are given up.
SLOWER = 1.05


@dataclass(frozen=True)
class Contest:
    """One task at some shots: the stock harness's requests of its first documents, and ours.

    Attributes:
        task, shots: what is scored.
        documents: how many.
        requests: the harness's own, in order.
        prepared: the task made ready for our side.
    """

    corpus: Corpus
    task: str
    shots: int
    documents: int
    requests: tuple[Any, ...]
    prepared: Prepared

    def flops(self, shape: Shape) -> tuple[float, float]:
        """Operations of the stock harness, and those that are needed."""
        read = Encoder(self.corpus.tokenizer, MAX_LENGTH).requests([request.args for request in self.requests])
        return stock_flops(shape, read), least_flops(shape, read)

    def stock(self, model: PreTrainedModel, batch: int, documents: int | None = None) -> list[tuple[float, bool]]:
        """The stock harness's answers to the requests of the first documents."""
        wanted = [request for request in self.requests if documents is None or request.doc_id < documents]
        with quietly():
            # It gives its tokenizer a padding token.
            lm = HFLM(model, tokenizer=copy.deepcopy(self.corpus.tokenizer), batch_size=batch, max_length=MAX_LENGTH)
            found: list[tuple[float, bool]] = lm.loglikelihood(wanted, disable_tqdm=True)
        return found

    def ours(self, model: PreTrainedModel, scorer: Scorer) -> Any:
        """Our answers."""
        return scorer.score(model, self.task, range(self.documents))


@dataclass(frozen=True)
class Standing:
    """How a contest ended.

    Attributes:
        speedup: the stock harness's time over ours.
        limit: what arithmetic allows.
        flops: operations that are needed.
        batch: the stock harness's best batch size.
        seconds: ours.
    """

    speedup: float
    limit: float
    flops: float
    batch: int
    seconds: float

    @property
    def of_limit(self) -> float:
        """The part of the limit that is reached."""
        return self.speedup / self.limit


def open_contest(corpus: Corpus, task: str, shots: int, documents: int) -> Contest:
    """Build the harness's requests and ours."""
    loaded = load_task(task, corpus.folders, num_fewshot=shots)
    with without_progress_bars():
        loaded.build_all_requests(limit=documents, rank=0, world_size=1)
    prepared = corpus.prepared([task], {task: shots})
    return Contest(corpus, task, shots, documents, tuple(loaded.instances), prepared)


def batch_times(
    stock: Callable[[int], Any], batches: Sequence[int], clock: Clock, repetitions: int
) -> dict[int, float]:
    """The stock harness's time at each batch size; larger ones are not tried once two in a row were slower.

    Those that the device has no room for are left out.
    """
    times: dict[int, float] = {}
    for batch in sorted(batches):
        try:
            times |= {batch: fastest({"stock": partial(stock, batch)}, repetitions, clock)["stock"]}
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            break
        if min(times.values()) * SLOWER < min(list(times.values())[-2:]):
            break
    return times


def best_batch(times: Mapping[int, float]) -> int:
    """The batch size with the least time."""
    return min(times, key=times.__getitem__)


def compete(
    contest: Contest, model: PreTrainedModel, *, sample: int, repetitions: int, clock: Clock = processor_clock
) -> Standing:
    """Time both on the same documents, in turn, the stock harness at the batch size that is best for a sample."""
    scorer = Scorer(contest.prepared, device=model.device, dtype=model.dtype)
    contest.ours(model, scorer)  # What is prepared once per runner is not a candidate's.
    sampled = partial(contest.stock, model, documents=sample)
    batch = best_batch(batch_times(sampled, BATCHES[model.device.type], clock, repetitions - 1))
    both = {"stock": partial(contest.stock, model, batch), "ours": partial(contest.ours, model, scorer)}
    times = fastest(both, repetitions, clock)
    stock, least = contest.flops(Shape.of(model.config))
    return Standing(times["stock"] / times["ours"], stock / least, least, batch, times["ours"])


@dataclass(frozen=True)
class Setting:
    """Some lines of the table.

    Attributes:
        tasks: with their shots.
        documents: scored by both.
        sample: documents on which the stock harness's best batch size is found.
    """

    tasks: dict[str, int]
    documents: int
    sample: int


def names_of(label: str, task: str, shots: int) -> tuple[str, str]:
    """What the two claims of a line are called."""
    line = f"{label}, {task} {shots}-shot"
    return f"{line}: part of the FLOP limit", f"{line}: speed-up over stock"


def report_lines(
    report: Report,
    corpus: Corpus,
    model: PreTrainedModel,
    setting: Setting,
    *,
    label: str,
    repetitions: int,
    clock: Clock = processor_clock,
) -> dict[str, Standing]:
    """Claim the lines of a setting; how each task's contest ended.

    Args:
        report: takes the claims.
        corpus: the documents.
        model: the candidate.
        setting: what is scored.
        label: names the model.
        repetitions: of each measurement.
        clock: what is timed with.
    """
    found = {}
    for task, shots in setting.tasks.items():
        contest = open_contest(corpus, task, shots, setting.documents)
        ended = found[task] = compete(contest, model, sample=setting.sample, repetitions=repetitions, clock=clock)
        part, speedup = names_of(label, task, shots)
        report.claim(part, ended.of_limit, "of 1", goal=OF_LIMIT)
        report.claim(speedup, ended.speedup, "times")
        report.note(
            f"{task} {shots}-shot: {setting.documents} documents, limit {ended.limit:.2f}, stock in batches of "
            f"{ended.batch}, ours {ended.seconds:.2f} s"
        )
    return found


def report_table(
    report: Report, corpus: Corpus, documents: int, few_shot: int, large_head: int, *, repetitions: int
) -> None:
    """Claim the whole table: a small model on every task in both settings, and the same model with a large head.

    Args:
        report: takes the claims.
        corpus: the documents.
        documents: of each task, 0-shot.
        few_shot: of each task, with examples.
        large_head: of each task under the large head.
        repetitions: of each measurement.
    """
    model, found = random_llama(M15), []
    for setting in (Setting(NO_SHOTS, documents, 12), Setting(SHOTS, few_shot, few_shot // 3)):
        ended = report_lines(report, corpus, model, setting, label="m15", repetitions=repetitions)
        found += [standing.of_limit for standing in ended.values()]
    mean = statistics.geometric_mean(found)
    report.claim("m15, all tasks and settings: part of the FLOP limit, geometric mean", mean, "of 1", goal=0.95)
    large = random_llama({**M15, "vocab_size": LARGE_VOCABULARY})
    setting = Setting(dict.fromkeys(LARGE_HEAD_TASKS, 0), large_head, large_head // 3)
    report_lines(report, corpus, large, setting, label="m15 with a head of 128,256", repetitions=repetitions)
