"""What is not measured is listed under the names that it has where it is; and the forward pass is what is left out."""

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks import scoring_gpu, scoring_preparation
from benchmarks.claims import Report
from benchmarks.scoring_setting import fastest, processor_clock
from benchmarks.scoring_shelf import Forward
from benchmarks.scoring_table import Standing, batch_times, best_batch
from evaluation.likelihood import LikelihoodReader, Packing
from evaluation.scorer import never
from evaluation.trees import TokenRequest, grow


@pytest.fixture
def report():
    return Report(quick=True)


@pytest.fixture
def model():
    torch.set_num_threads(1)
    return LlamaForCausalLM(
        LlamaConfig(
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            vocab_size=32,
            num_key_value_heads=2,
            max_position_embeddings=128,
        )
    ).eval()


def claimed(report):
    return {(claim.name, claim.goal) for claim in report.claims}


def skipped(report):
    return {(entry["name"], entry["goal"]) for entry in report.not_run}


def tree(*reads):
    return grow([TokenRequest(np.array(read, np.int32), np.array(read[-1:], np.int32)) for read in reads])


def test_a_preparation_that_is_not_measured_is_listed_under_its_names(report, monkeypatch, tmp_path):
    figures = {"seconds": 1.0, "processor": 1.0, "peak": 0.9, "libraries": 0.5}
    monkeypatch.setattr(scoring_preparation, "_in_fresh_process", lambda *arguments: figures)
    scoring_preparation.report_preparation(report, tmp_path, tmp_path, tmp_path, "few-shot")
    scoring_preparation.skip_preparation(report, "few-shot", "no time")
    assert claimed(report) == skipped(report) and len(report.claims) == 4


def test_without_a_gpu_its_table_is_listed_under_its_names(report, monkeypatch):
    def lines(report, corpus, model, setting, *, label, **options):
        for task, shots in setting.tasks.items():
            part, speedup = scoring_gpu.names_of(label, task, shots)
            report.claim(part, 1.0, "of 1", scoring_gpu.OF_LIMIT)
            report.claim(speedup, 4.0, "times")
        return {task: Standing(4.0, 4.0, 1e12, 16, 1.0) for task in setting.tasks}

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(scoring_gpu, "matrix_rate", lambda: 2e12)
    monkeypatch.setattr(scoring_gpu, "random_llama", lambda *arguments, **options: None)
    monkeypatch.setattr(scoring_gpu, "report_lines", lines)
    scoring_gpu.report_gpu(report, None, 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    scoring_gpu.report_gpu(report, None, 1)
    assert claimed(report) == skipped(report)
    # 4 tasks of 1e12 operations in 1 s each, where 2e12 could be done.
    used = {claim.value for claim in report.claims if "utilisation" in claim.name}
    assert used == {0.5}


@pytest.mark.parametrize("alone", [None, 2])
def test_a_forward_pass_left_out_is_never_run_and_all_around_it_is(alone, model):
    model.forward = model.base_model.forward = None
    reader = LikelihoodReader(torch.device("cpu"), 64, Packing(8, 8, alone))
    with Forward(processor_clock, left_out=True).watched():
        answers = reader.read(model, [tree([1, 2, 3, 4], [1, 2, 3, 5]), tree([7, 8])], cancelled=never)
    assert [answer.sums.tolist() for answer in answers] == [[0.0, 0.0], [0.0]]


@pytest.mark.parametrize("alone", [None, 2])
def test_a_watched_forward_pass_answers_as_ever_and_is_timed(alone, model):
    reader, ticks = LikelihoodReader(torch.device("cpu"), 64, Packing(8, 8, alone)), iter(range(1000))
    trees = [tree([1, 2, 3, 4], [1, 2, 3, 5]), tree([7, 8])]
    plain = reader.read(model, trees, cancelled=never)
    forward = Forward(lambda: float(next(ticks)))
    with forward.watched():
        found = reader.read(model, trees, cancelled=never)
    assert [answer.sums.tolist() for answer in found] == [answer.sums.tolist() for answer in plain]
    # The clock ticks once at every look: one second a pass. A trunk read for its own sake is a pass.
    assert forward.seconds == (1 if alone is None else 3)


def test_the_fastest_of_several_rounds_counts():
    times, now = iter([5, 1, 2, 9]), [0.0]

    def work():
        now[0] += next(times)

    assert fastest({"one": work, "other": work}, 2, lambda: now[0]) == {"one": 2.0, "other": 1.0}


@pytest.mark.parametrize(
    ("seconds", "tried", "best"),
    [((5, 3, 2, 4, 6, 1), 5, 4), ((5, 3, 3.1, 3.1, 2, 9), 6, 16), ((1, 2, 0.9, 5, 5, 0.1), 5, 4), ((3, 2, 1), 3, 4)],
)
def test_the_stock_harness_gets_its_best_batch_and_larger_ones_are_given_up_after_two_slower_ones(seconds, tried, best):
    sizes, now = [2**n for n in range(len(seconds))], [0.0]

    def stock(size):
        now[0] += seconds[sizes.index(size)]

    times = batch_times(stock, sizes, lambda: now[0], 1)
    assert (len(times), best_batch(times)) == (tried, best)
