"""What the scoring benchmark scores, and how it times: random models, invented documents, two contestants in turn."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks.items import SHOTS, train_tokenizer, write_items
from benchmarks.scoring_preparation import MAX_LENGTH
from core.objective import TaskSpec
from evaluation.catalog import TaskFolders
from evaluation.prepare import Prepared, prepare_with

#: 12.7 million parameters, 2.6 of them in each embedding.
M15 = {
    "hidden_size": 320,
    "intermediate_size": 864,
    "num_hidden_layers": 6,
    "num_attention_heads": 5,
    "num_key_value_heads": 5,
    "vocab_size": 8192,
}
#: The vocabulary of the third generation of Llamas.
LARGE_VOCABULARY = 128_256
NO_SHOTS = dict.fromkeys(SHOTS, 0)

Clock = Callable[[], float]


@dataclass(frozen=True)
class Corpus:
    """Invented documents, and a tokenizer of theirs.

    Attributes:
        items: holds `<task>/<split>.parquet`.
        tokenizer_folder: where the tokenizer lies.
        tokenizer: the same, loaded.
    """

    items: Path
    tokenizer_folder: Path
    tokenizer: PreTrainedTokenizerFast

    @property
    def folders(self) -> TaskFolders:
        """Where our own side finds the tasks."""
        return TaskFolders(self.items)

    def smaller(self, folder: Path, share: float = 1.0, most: int | None = None) -> Corpus:
        """Fewer documents (64 of each task at least) under the same tokenizer, which must not know them by heart."""
        return replace(self, items=write_items(folder, share, most=most))

    def prepared(self, tasks: Sequence[str], shots: dict[str, int]) -> Prepared:
        """The tasks made ready for our own side."""
        specs = [TaskSpec(task=task, num_fewshot=shots[task]) for task in tasks]
        return prepare_with(specs, self.tokenizer, self.folders, max_length=MAX_LENGTH)


def write_corpus(folder: Path) -> Corpus:
    """Documents of the official sizes and a tokenizer of 8,192 entries."""
    items = write_items(folder / "items")
    return Corpus(items, folder / "tokenizer", train_tokenizer(items, folder / "tokenizer"))


def random_llama(
    sizes: dict[str, int], seed: int = 0, *, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> LlamaForCausalLM:
    """A random model in eval mode, made on the device in its own dtype."""
    config = LlamaConfig(**sizes, max_position_embeddings=MAX_LENGTH, bos_token_id=0, eos_token_id=1, dtype=dtype)
    before = torch.get_default_dtype()
    with torch.random.fork_rng(), torch.device(device):
        torch.manual_seed(seed)
        torch.set_default_dtype(dtype)
        try:
            return LlamaForCausalLM(config).eval()
        finally:
            torch.set_default_dtype(before)


def processor_clock() -> float:
    """Seconds of processor time of this process."""
    return time.process_time()


def device_clock() -> float:
    """Seconds, once the GPU has done all that it was asked to."""
    torch.cuda.synchronize()
    return time.perf_counter()


def fastest(contestants: dict[str, Callable[[], Any]], repetitions: int, clock: Clock) -> dict[str, float]:
    """The best time of each, all of them in turn in every repetition, so that a disturbance meets all alike."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(repetitions):
        for name, work in contestants.items():
            begun = clock()
            work()
            times[name].append(clock() - begun)
    return {name: min(found) for name, found in times.items()}


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Keeps the harness's bars and remarks off the table of figures."""
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        yield
