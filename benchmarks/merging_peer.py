"""mergekit's side of the comparison: run by the interpreter of mergekit's own environment, never imported by ours.

Reads one JSON object per line and answers each with {"seconds": wall} up to a live model that holds the merge:

    {"way": "memory", "folders": {...}, "base": ..., "method": ..., "parameters": {...}, "dtype": ...}
        `merge_state_dicts` over parents that are loaded already; the result takes the place of a model's parameters.
    {"way": "files", "config": {...}, "out": ...}
        a configuration is merged to a folder, and the folder is loaded. Parents are in the page cache.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from typing import Any

import torch
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.merge_methods import merge_state_dicts
from mergekit.options import MergeOptions
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

_parents: dict[str, dict[str, torch.Tensor]] = {}
_models: dict[str, Any] = {}


def in_memory(wanted: dict[str, Any]) -> float:
    """Seconds of one merge of loaded parents."""
    for folder in wanted["folders"].values():
        if folder not in _parents:
            _parents[folder] = {k: v.clone() for k, v in load_file(f"{folder}/model.safetensors").items()}
        if "live" not in _models:
            config = AutoConfig.from_pretrained(folder)
            _models["live"] = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, wanted["dtype"]))
    models = {name: _parents[folder] for name, folder in wanted["folders"].items()}
    started = time.perf_counter()
    with torch.no_grad():
        merged = merge_state_dicts(models, wanted["method"], parameters=wanted["parameters"], base=wanted["base"])
        _models["live"].load_state_dict(merged, assign=True)
    return time.perf_counter() - started


def through_files(wanted: dict[str, Any]) -> float:
    """Seconds of one merge to disk and of loading what it wrote."""
    config = MergeConfiguration.model_validate(wanted["config"])
    options = MergeOptions(copy_tokenizer=False, write_model_card=False, quiet=True)
    started = time.perf_counter()
    run_merge(config, wanted["out"], options)
    AutoModelForCausalLM.from_pretrained(wanted["out"], dtype=getattr(torch, wanted["config"]["dtype"]))
    taken = time.perf_counter() - started
    shutil.rmtree(wanted["out"])
    return taken


def main() -> None:
    """Answer until there is no more to merge."""
    for line in sys.stdin:
        wanted = json.loads(line)
        taken = in_memory(wanted) if wanted["way"] == "memory" else through_files(wanted)
        print(json.dumps({"seconds": taken}), flush=True)


if __name__ == "__main__":
    main()
