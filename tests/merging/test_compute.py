from __future__ import annotations

import time
import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from transformers import LlamaForCausalLM

from core.errors import NonFiniteWeightsError
from merging import compute as compute_module
from merging import kernels
from merging.compute import compute, peak_bytes
from merging.plan import plan
from merging.resident import Resident

METHODS = ["linear", "task_arithmetic", "ties", "dare_ties"]


def planned(family, method, name="model.embed_tokens.weight", **params):
    headers = {model.weights_digest: model.header for model in family.models.values()}
    return next(p for p in plan(family.merge(method, **params), headers) if p.name == name)


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the storages alive that operations made, and their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[int, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_flatten(result)[0]:
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self.live:
                    self.live[storage._cdata] = storage.nbytes()
                    weakref.finalize(storage, self.live.pop, storage._cdata, None)
        self.peak = max(self.peak, sum(self.live.values()))
        return result


@pytest.mark.parametrize("method", METHODS)
def test_the_size_of_a_block_does_not_change_the_bytes(family, monkeypatch, method):
    params = {"density": 0.5} if method in ("ties", "dare_ties") else {}
    item = planned(family, method, **params)
    whole = compute(item, family.parents())
    for size in (64, 1000, 2047):
        for module in (compute_module, kernels):
            monkeypatch.setattr(module, "BLOCK", size)
        assert torch.equal(compute(item, family.parents()), whole)


def test_the_result_is_written_into_the_memory_given(family):
    item = planned(family, "linear", save_dtype="bfloat16")
    out = torch.empty(item.shape, dtype=torch.bfloat16)
    assert compute(item, family.parents(), out=out) is out
    assert torch.equal(out, compute(item, family.parents()))


def test_a_result_that_is_not_finite_is_refused_by_name(family):
    with pytest.raises(NonFiniteWeightsError) as caught:
        compute(planned(family, "task_arithmetic", weight=1e39), family.parents())
    assert caught.value.where == "model.embed_tokens.weight"


@pytest.mark.parametrize("save_dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", METHODS)
def test_the_memory_taken_stays_within_what_was_planned(half_family, method, save_dtype):
    params = {"density": 0.5} if method in ("ties", "dare_ties") else {}
    item = planned(half_family, method, save_dtype=save_dtype, **params)
    parents = half_family.parents(keep_bytes=0)
    with LiveBytes() as counted:
        compute(item, parents, keep=False)
    assert 0 < counted.peak <= peak_bytes(item, parents)


@pytest.mark.parametrize(
    ("method", "limit"), [("linear", 0.06), ("task_arithmetic", 0.06), ("ties", 0.3), ("dare_ties", 0.3)]
)
def test_a_model_of_nursery_size_is_built_quickly_on_one_core(
    tmp_path, family, make_llama_config, save_tokenizer, method, limit
):
    config = make_llama_config(vocab_size=1024, hidden_size=128, intermediate_size=344, num_hidden_layers=6)
    for name in ("base", "a", "b"):
        LlamaForCausalLM(config).save_pretrained(tmp_path / name)
        save_tokenizer(tmp_path / name)
    nursery = type(family)(tmp_path, ("base", "a", "b"))
    resident = Resident(nursery.parents())
    seconds = []
    for weight in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6):
        params = {"density": weight} if method in ("ties", "dare_ties") else {}
        recipe = nursery.merge(method, ("a", "b"), weight=weight, **params)
        start = time.process_time()
        resident.build(recipe)
        seconds.append(time.process_time() - start)
    assert min(seconds[1:]) < limit
