"""Same recipe, same weights: in fresh processes, whatever the hash seed, the threads, the sharding or the destination."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("law_three.py")
SETTINGS = [(hash_seed, threads) for hash_seed in (0, 1, 2) for threads in (1, 2)]


def run(folder: Path, hash_seed: int, threads: int) -> subprocess.Popen[str]:
    settings = {"PYTHONHASHSEED": str(hash_seed), "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    environment = {**os.environ, **settings, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(SCRIPT), str(folder), str(threads)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def reports(tmp_path_factory, make_llama_config) -> list[dict[str, dict[str, list[str]]]]:
    """One report per setting, over parents large enough that torch splits their tensors between threads."""
    folder = tmp_path_factory.mktemp("law")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = LlamaForCausalLM(make_llama_config(vocab_size=2100, hidden_size=64, num_hidden_layers=2))
        for name in ("base", "a", "b"):
            model.save_pretrained(folder / name)
            for parameter in model.parameters():
                parameter.data += 0.02 * torch.randn(parameter.shape)
    # Two at a time: each needs a core.
    found = []
    for pair in zip(SETTINGS[::2], SETTINGS[1::2], strict=True):
        running = [run(folder, *setting) for setting in pair]
        for process in running:
            out, err = process.communicate(timeout=300)
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


def test_every_recipe_and_dtype_has_its_own_weights(reports):
    weights = [told["weights"][0] for told in reports[0].values()]
    assert len(weights) == 12
    assert len(set(weights)) == 12
