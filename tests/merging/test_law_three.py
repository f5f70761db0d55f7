"""Same recipe, same weights: in fresh processes, whatever the hash seed, threads, order, sharding or destination."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from merging.methods import methods

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("law_three.py")
#: Hash seed, threads and order of the processes. Two run at a time: each needs a core.
QUICK = [(0, 1, "forwards"), (1, 2, "backwards")]
FULL = list(itertools.product((0, 1, 2), (1, 2), ("forwards", "backwards")))


def run(folder: Path, scope: str, hash_seed: int, threads: int, order: str) -> subprocess.Popen[str]:
    settings = {"PYTHONHASHSEED": str(hash_seed), "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    environment = {**os.environ, **settings, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(SCRIPT), str(folder), str(threads), order, scope]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def parents(tmp_path_factory, make_llama_config) -> Path:
    """Checkpoints large enough that torch splits their tensors between threads."""
    folder = tmp_path_factory.mktemp("law")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = LlamaForCausalLM(make_llama_config(vocab_size=2100, hidden_size=64, num_hidden_layers=2))
        for name in ("base", "a", "b", "c"):
            model.save_pretrained(folder / name)
            for parameter in model.parameters():
                # Half of the entries change, so that some are changed by one model only.
                parameter.data += 0.02 * torch.randn(parameter.shape) * (torch.rand(parameter.shape) < 0.5)
    return folder


@pytest.fixture(scope="module", params=["quick", pytest.param("full", marks=pytest.mark.slow)])
def reports(request, parents) -> list[dict[str, dict[str, list[str]]]]:
    """One report per process."""
    found = []
    settings = QUICK if request.param == "quick" else FULL
    for pair in zip(settings[::2], settings[1::2], strict=True):
        running = [run(parents, request.param, *setting) for setting in pair]
        for process in running:
            out, err = process.communicate(timeout=900)
            assert process.returncode == 0, err
            found.append(json.loads(out))
    return found


def test_resident_and_exported_weights_have_one_digest_in_every_process(reports):
    for name in reports[0]:
        digests = {digest for report in reports for digest in report[name]["weights"]}
        assert len(digests) == 1, name


def test_recipes_and_layer_keys_are_the_same_in_every_process(reports):
    first, *others = reports
    for report in others:
        for name, told in first.items():
            assert (report[name]["recipe"], report[name]["keys"]) == (told["recipe"], told["keys"])


def test_every_method_of_the_registry_is_tried_and_has_its_own_weights(reports):
    told = reports[0]
    assert {name.split()[0] for name in told} == {*methods(), "dus"}
    weights = [each["weights"][0] for each in told.values()]
    assert len(set(weights)) == len(weights)
