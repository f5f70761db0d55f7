"""mergekit's side of the comparison: run by the interpreter of mergekit's own environment, never imported by ours.

    <mergekit's python> merging_peer.py

Reads one JSON object per line, {"config": <a mergekit configuration>}, merges it in memory into a live model and
answers with {"seconds": wall, "cpu": process time}. This is mergekit's fastest documented way to a model that is ready to be
scored: planned in memory, no file written, tensors copied into the parameters. Models stay in the page cache.
"""

from __future__ import annotations

import json
import sys
import time

import torch
from mergekit.architecture import arch_info_for_config
from mergekit.config import MergeConfiguration
from mergekit.graph import Executor
from mergekit.merge import MergeOptions
from mergekit.plan import MergePlanner
from transformers import AutoConfig, AutoModelForCausalLM


def main() -> None:
    """Answer until there is no more to merge."""
    model, parameters, architecture, config = None, {}, None, None
    options = MergeOptions(lazy_unpickle=True, quiet=True)
    for line in sys.stdin:
        wanted = MergeConfiguration.model_validate(json.loads(line)["config"])
        if model is None:
            config = AutoConfig.from_pretrained(str(wanted.referenced_models()[0].model.path))
            model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, wanted.dtype))
            parameters = dict(model.named_parameters())
            architecture = arch_info_for_config(config)
        wall, cpu = time.perf_counter(), time.process_time()
        planner = MergePlanner(wanted, architecture, options, config)
        executor = Executor(planner.plan_in_memory(), math_device="cpu", storage_device="cpu")
        with torch.no_grad():
            for task, tensor in executor.run(quiet=True):
                parameters[task.weight_info.name].copy_(tensor)
        answer = {"seconds": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
