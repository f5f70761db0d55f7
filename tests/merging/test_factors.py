"""Factors that were folded into weights do what modules that really scale would do."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from zoo import FAMILIES, attention_of, layers_of, logits, reference

from core.checkpoint import read_header
from merging.compute import compute, peak_bytes
from merging.export import export
from merging.plan import plan
from merging.resident import Resident, weights_digest

#: What each layer adds to the residual stream comes out of these modules.
OUTPUTS = {
    "gemma2": ("post_attention_layernorm", "post_feedforward_layernorm"),
    "gemma3_text": ("post_attention_layernorm", "post_feedforward_layernorm"),
    "gpt2": ("attn", "mlp"),
    "gpt_neox": ("attention", "mlp"),
}
STACK = (0, 1, 2, 1, 2, 3, 1)
AGAIN = (3, 4, 6)


def scale_outputs(layer: torch.nn.Module, kind: str, factor: float) -> None:
    def hook(module: torch.nn.Module, inputs: Any, result: Any) -> Any:
        return (result[0] * factor, *result[1:]) if isinstance(result, tuple) else result * factor

    for name in OUTPUTS.get(kind, ("self_attn", "mlp")):
        getattr(layer, name).register_forward_hook(hook)


def scale_stream(layer: torch.nn.Module, factor: float) -> None:
    def hook(module: torch.nn.Module, inputs: Any, named: Any) -> Any:
        return (inputs[0] * factor, *inputs[1:]), named

    layer.register_forward_pre_hook(hook, with_kwargs=True)


def wide(build: Callable[[], Any]) -> Any:
    """The model in float64: what differs then is the rounding of its weights alone."""
    return build().double()


@pytest.mark.parametrize("kind", FAMILIES)
def test_half_the_logits_of_repeated_layers_are_what_modules_of_half_the_scale_give(zoo, tokens, kind):
    models = zoo(kind)
    recipe = models.recipe(**_stack(STACK), repeated={"attention": 0.5}, save_dtype="float32")
    built = wide(lambda: Resident(models.parents(), attn_implementation="eager").build(recipe).model)
    expected = wide(lambda: reference([(models.folder / "base", layer) for layer in STACK]))
    expected.set_attn_implementation("eager")
    unscaled = logits(expected, tokens)
    for place in AGAIN:
        attention_of(layers_of(expected)[place]).scaling *= 0.5
    torch.testing.assert_close(logits(built, tokens), logits(expected, tokens), rtol=0, atol=3e-6)
    assert (unscaled - logits(expected, tokens)).abs().max() > 1e-3


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_factor_on_the_outputs_of_repeated_layers_is_a_factor_on_what_they_add(zoo, tokens, kind):
    models = zoo(kind)
    repeated = {"attention": 1.0, "output": 0.6}
    recipe = models.recipe(**_stack(STACK), repeated=repeated, save_dtype="float32")
    built = wide(lambda: Resident(models.parents()).build(recipe).model)
    expected = wide(lambda: reference([(models.folder / "base", layer) for layer in STACK]))
    unscaled = logits(expected, tokens)
    for place in AGAIN:
        scale_outputs(layers_of(expected)[place], kind, 0.6)
    torch.testing.assert_close(logits(built, tokens), logits(expected, tokens), rtol=0, atol=3e-6)
    assert (unscaled - logits(expected, tokens)).abs().max() > 1e-3


def _stack(layers: tuple[int, ...]) -> dict[str, Any]:
    return {"slices": ({"sources": [{"source": "base", "layers": layers}]},)}


#: Two sources of four layers, twice: slots 0-3 and 8-11 are the base's, 4-7 and 12-15 are a's.
PATH = {
    "sources": ["base", "a"],
    "repeats": 2,
    "include": [slot in (0, 1, 6, 9, 10, 12, 15) for slot in range(16)],
    "scales": [{0: 1.3, 6: 0.5, 9: 2.5, 12: 0.7, 15: 1.1}.get(slot) for slot in range(16)],
}
VISITED = (("base", 0), ("base", 1), ("a", 2), ("base", 1), ("base", 2), ("a", 0), ("a", 3))
SCALES = (1.3, 1.0, 0.5, 2.5, 1.0, 0.7, 1.1)


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_path_computes_what_layers_do_whose_stream_is_really_scaled(zoo, tokens, kind):
    models = zoo(kind)
    recipe = models.recipe(path=PATH, save_dtype="float32")
    built = wide(lambda: Resident(models.parents()).build(recipe).model)
    path = [(models.folder / name, layer) for name, layer in VISITED]
    expected = wide(lambda: reference(path, head=models.folder / "a"))
    unscaled = logits(expected, tokens)
    for layer, factor in zip(layers_of(expected), SCALES, strict=True):
        scale_stream(layer, factor)
    for model in (built, expected):
        _without_epsilon(model)
    torch.testing.assert_close(logits(built, tokens), logits(expected, tokens), rtol=0, atol=3e-6)
    assert (unscaled - logits(expected, tokens)).abs().max() > 1e-3


def _without_epsilon(model: torch.nn.Module) -> None:
    """With an epsilon of 0 the fold is exact: a norm undoes every factor on its input."""
    for module in model.modules():
        for name in ("eps", "variance_epsilon"):
            if hasattr(module, name) and "Norm" in type(module).__name__:
                setattr(module, name, 0.0)


def test_the_fold_differs_by_the_norms_epsilon_and_by_nothing_else(zoo, tokens):
    """The error is linear in epsilon, and with an epsilon C_j^2 times as large in layer j it is gone."""
    models = zoo("llama")
    recipe = models.recipe(path=PATH, save_dtype="float32")
    built = wide(lambda: Resident(models.parents()).build(recipe).model)
    expected = wide(lambda: reference([(models.folder / n, i) for n, i in VISITED], head=models.folder / "a"))
    for layer, factor in zip(layers_of(expected), SCALES, strict=True):
        scale_stream(layer, factor)
    errors = []
    for epsilon in (1e-4, 1e-5, 0.0):
        _set_epsilon(built, [epsilon] * 8)
        _set_epsilon(expected, [epsilon] * 8)
        errors.append(float((logits(built, tokens) - logits(expected, tokens)).abs().max()))
    assert errors[0] == pytest.approx(10 * errors[1], rel=0.05)
    assert errors[2] < 3e-6 < errors[1]
    streams = [math.prod(SCALES[: place + 1]) for place in range(7)]
    _set_epsilon(built, [1e-4 / stream**2 for stream in (*streams, streams[-1])])
    _set_epsilon(expected, [1e-4] * 8)
    torch.testing.assert_close(logits(built, tokens), logits(expected, tokens), rtol=0, atol=3e-6)


def _set_epsilon(model: Any, values: list[float]) -> None:
    for layer, epsilon in zip((*model.model.layers, model.model.norm), values, strict=True):
        for module in layer.modules():
            if hasattr(module, "variance_epsilon"):
                module.variance_epsilon = epsilon


def test_a_path_is_exported_as_a_checkpoint_like_any_other(zoo, tokens, tmp_path):
    from transformers import AutoModelForCausalLM

    models = zoo("gemma3_text")
    recipe = models.recipe(path=PATH, repeated={"output": 0.5}, save_dtype="bfloat16")
    built = Resident(models.parents()).build(recipe)
    info = export(recipe, models.parents(), tmp_path / "out", tokenizer_folder=models.folder / "base")
    assert info.weights_digest == weights_digest(built)
    assert read_header(tmp_path / "out").layers == 7
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert torch.equal(logits(loaded, tokens), logits(built.model, tokens))


def test_a_stream_that_keeps_its_size_leaves_every_tensor_its_parents(zoo):
    models = zoo("gemma2")
    path = {"sources": ["base", "a"], "include": [True] * 8, "scales": [2.0, 0.5, *[1.0] * 6]}
    plans = plan(models.recipe(path=path, save_dtype="float32"), models.parents().headers)
    computed = {planned.name for planned in plans if planned.shared is None}
    norms = ("post_attention_layernorm.weight", "post_feedforward_layernorm.weight")
    assert computed == {f"model.layers.0.{norm}" for norm in norms}


@pytest.mark.parametrize("kind", ["gpt2", "gpt_neox", "phi3"])
def test_of_a_fused_projection_only_queries_and_keys_are_scaled(zoo, kind):
    models = zoo(kind)
    recipe = models.recipe(**_stack((0, 0)), repeated={}, save_dtype="float32")
    name = {"gpt2": "attn.c_attn.weight", "gpt_neox": "attention.query_key_value.weight"}.get(
        kind, "self_attn.qkv_proj.weight"
    )
    planned = next(each for each in plan(recipe, models.parents().headers) if "1." + name in each.name)
    out = compute(planned, models.parents())
    source = models.tensors("base")[planned.name.replace("1.", "0.", 1)]
    root = torch.tensor(math.sqrt(0.5), dtype=torch.float32)
    expected = source.clone()
    if kind == "gpt2":  # [in, q k v] of 32 each
        expected[:, :64] *= root
    elif kind == "gpt_neox":  # 4 heads of q, k and v with 8 rows each
        expected.view(4, 3, 8, 32)[:, :2] *= root
    else:  # 4 query heads, 2 key heads and 2 value heads of 8 rows
        expected[:48] *= root
    assert torch.equal(out, expected)
    assert peak_bytes(planned, models.parents()) >= 2 * out.nbytes


def test_centred_norms_are_scaled_around_minus_one_and_rounded_once(zoo):
    models = zoo("gemma3_text")
    recipe = models.recipe(**_stack((0, 0)), repeated={"attention": 0.25, "output": 0.6}, save_dtype="bfloat16")
    plans = {planned.name: planned for planned in plan(recipe, models.parents().headers)}
    for suffix, factor in (("self_attn.q_norm.weight", 0.5), ("post_feedforward_layernorm.weight", 0.6)):
        source = models.tensors("base")[f"model.layers.0.{suffix}"]
        expected = ((source * torch.tensor(factor)) + torch.tensor(factor - 1.0)).to(torch.bfloat16)
        out = compute(plans[f"model.layers.1.{suffix}"], models.parents())
        assert torch.equal(out, expected)
        torch.testing.assert_close(1 + out.float(), factor * (1 + source), rtol=0, atol=2e-3)
