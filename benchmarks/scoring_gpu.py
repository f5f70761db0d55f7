"""The table on a GPU: shapes of one and eight billion parameters in bfloat16, with model FLOP utilisation."""

from __future__ import annotations

import torch

from benchmarks.claims import Report
from benchmarks.items import SHOTS
from benchmarks.scoring_setting import LARGE_VOCABULARY, NO_SHOTS, Corpus, device_clock, random_llama
from benchmarks.scoring_table import OF_LIMIT, Setting, names_of, report_lines

#: The third generation of Llamas.
SHAPES = {
    "1 B": {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": LARGE_VOCABULARY,
    },
    "8 B": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": LARGE_VOCABULARY,
    },
}
#: Model FLOP utilisation, as a part of the rate at which large matrices are multiplied.
UTILISATION = 0.55
SETTINGS = (Setting(NO_SHOTS, documents=128, sample=64), Setting(SHOTS, documents=32, sample=16))
#: Width of the matrices, and how often they are multiplied.
_WIDTH, _TIMES = 8192, 20


def report_gpu(report: Report, corpus: Corpus, repetitions: int) -> None:
    """Claim the lines of both shapes, or list them where there is no GPU.

    Args:
        report: takes the claims.
        corpus: at least 128 documents of each task.
        repetitions: of each measurement.
    """
    if not torch.cuda.is_available():
        _skip(report, "there is no GPU on this machine")
        return
    rate = matrix_rate()
    report.claim("bfloat16 matrices: operations", rate / 1e12, "TFLOP/s")
    for label, sizes in SHAPES.items():
        model = random_llama(sizes, device="cuda", dtype=torch.bfloat16)
        for setting in SETTINGS:
            ended = report_lines(
                report, corpus, model, setting, label=_name(label), repetitions=repetitions, clock=device_clock
            ).values()
            used = sum(one.flops for one in ended) / sum(one.seconds for one in ended) / rate
            report.claim(_utilisation(label, setting), used, "of 1", _goal(setting))
        del model
        torch.cuda.empty_cache()


def matrix_rate() -> float:
    """Operations per second of bfloat16 matrix products."""
    one, other = (torch.randn(_WIDTH, _WIDTH, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    one @ other
    best = min(_seconds(one, other) for _ in range(_TIMES))
    return float(2 * _WIDTH**3 / best)


def _seconds(one: torch.Tensor, other: torch.Tensor) -> float:
    begun = device_clock()
    one @ other
    return device_clock() - begun


def _skip(report: Report, reason: str) -> None:
    report.skip("bfloat16 matrices: operations", None, reason)
    for label in SHAPES:
        for setting in SETTINGS:
            for task, shots in setting.tasks.items():
                for name, goal in zip(names_of(_name(label), task, shots), (OF_LIMIT, None), strict=True):
                    report.skip(name, goal, reason)
            report.skip(_utilisation(label, setting), _goal(setting), reason)


def _name(label: str) -> str:
    return f"{label} in bfloat16"


def _utilisation(label: str, setting: Setting) -> str:
    return f"{_name(label)}, {'few-shot' if any(setting.tasks.values()) else '0-shot'}: model FLOP utilisation"


def _goal(setting: Setting) -> float | None:
    return None if any(setting.tasks.values()) else UTILISATION
