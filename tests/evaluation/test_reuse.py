from __future__ import annotations

import copy

import pytest
import torch

from evaluation.reuse import HEIGHTS, HiddenStore, body_layers

TOKENS = torch.arange(24).view(2, 12) * 7 % 320
EMBED = "embedding"
FAMILIES = ["llama", "qwen2-window", "gemma2", "gemma3", "phi3", "gpt_neox", "gpt2"]


def keys(*names):
    return tuple(f"layer {name}" for name in names)


def restack(model, order):
    """The same model with layers in another order or number, each with an index of its own."""
    stacked = copy.deepcopy(model)
    layers = body_layers(stacked)
    chosen = [copy.deepcopy(layers[i]) for i in order]
    for place, layer in enumerate(chosen):
        for part in layer.modules():
            if hasattr(part, "layer_idx"):
                part.layer_idx = place
    container = stacked.base_model
    name = "h" if hasattr(container, "h") else "layers"
    setattr(container, name, torch.nn.ModuleList(chosen))
    stacked.config.num_hidden_layers = len(chosen)
    if getattr(stacked.config, "layer_types", None):
        stacked.config.layer_types = [stacked.config.layer_types[i] for i in order]
    return stacked


class Counted:
    """Counts how often the layers of a model run."""

    def __init__(self, model):
        self.calls = 0
        for layer in body_layers(model):
            layer.register_forward_pre_hook(self._seen)

    def _seen(self, *_):
        self.calls += 1


@pytest.fixture
def forward():
    @torch.no_grad()
    def run(model, tokens=TOKENS):
        return model.base_model(tokens, use_cache=False).last_hidden_state

    return run


@pytest.mark.parametrize("name", FAMILIES)
def test_a_candidate_with_a_common_lower_stack_starts_above_it_and_gets_the_same_bits(name, make_architecture, forward):
    whole = restack(make_architecture(name), [0, 1, 0, 1])
    other = restack(make_architecture(name), [0, 1, 1, 0, 1])
    store = HiddenStore(1 << 24)
    first = store.stack(whole, EMBED, keys(0, 1, 0, 1))
    assert torch.equal(first.read("pass", lambda: forward(whole)), forward(whole))
    counted = Counted(other)
    second = store.stack(other, EMBED, keys(0, 1, 1, 0, 1))
    plain = forward(other)
    counted.calls = 0
    assert torch.equal(second.read("pass", lambda: forward(other)), plain)
    assert counted.calls == 3


def test_another_pass_embedding_configuration_or_lower_layer_shares_nothing(make_architecture, forward):
    model = restack(make_architecture("llama"), [0, 1, 0, 1])
    store = HiddenStore(1 << 24)
    store.stack(model, EMBED, keys(0, 1, 0, 1)).read("pass", lambda: forward(model))
    counted = Counted(model)
    for embed, layers, reading in [
        (EMBED, keys(0, 1, 0, 1), "another pass"),
        ("another", keys(0, 1, 0, 1), "pass"),
        (EMBED, keys(9, 1, 0, 1), "pass"),
    ]:
        counted.calls = 0
        store.stack(model, embed, layers).read(reading, lambda: forward(model))
        assert counted.calls == 4
    theta = make_architecture("llama", rope_parameters={"rope_type": "default", "rope_theta": 500.0})
    other = restack(theta, [0, 1, 0, 1])
    counted = Counted(other)
    found = store.stack(other, EMBED, keys(0, 1, 0, 1)).read("pass", lambda: forward(other))
    assert counted.calls == 4 and torch.equal(found, forward(other))


def test_a_stack_without_relatives_is_kept_at_even_heights_and_its_kin_where_they_part(make_architecture):
    model = restack(make_architecture("llama"), [0, 1] * 12)
    store = HiddenStore(1 << 24)
    first = store.stack(model, EMBED, keys(*range(24)))
    assert sorted(first._heights) == list(range(3, 24, 3)) and len(first._heights) < HEIGHTS
    kin = store.stack(model, EMBED, keys(*range(11), *range(100, 113)))
    assert sorted(kin._heights) == [11]


def test_the_least_recently_used_states_make_room(make_architecture, forward):
    model = restack(make_architecture("llama"), [0, 1])
    one = 2 * 12 * 32 * 4
    store = HiddenStore(2 * one)
    counted = Counted(model)

    def calls(reading):
        counted.calls = 0
        store.stack(model, EMBED, keys(0, 1)).read(reading, lambda: forward(model))
        return counted.calls

    assert [calls("a"), calls("b"), calls("a"), calls("c")] == [2, 2, 1, 2]
    assert [calls("a"), calls("b")] == [1, 2]
    assert HiddenStore(one - 1).stack(model, EMBED, keys(0, 1)).read("a", lambda: forward(model)) is not None


def test_what_is_kept_cannot_be_changed_from_outside(make_architecture, forward):
    model = restack(make_architecture("llama"), [0, 1])
    store, plain = HiddenStore(1 << 20), forward(model)
    for _ in range(3):
        found = store.stack(model, EMBED, keys(0, 1)).read("a", lambda: forward(model))
        assert torch.equal(found, plain)
        found.zero_()


def test_a_pass_that_fails_leaves_every_layer_and_hook_as_they_were(make_architecture, forward):
    model = restack(make_architecture("llama"), [0, 1, 0])
    store = HiddenStore(1 << 20)
    stack = store.stack(model, EMBED, keys(0, 1, 0))
    stack.read("a", lambda: forward(model))
    layers = list(body_layers(model))

    def broken():
        assert list(body_layers(model)) != layers
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        stack.read("a", broken)
    assert list(body_layers(model)) == layers
    assert all(not layer._forward_pre_hooks and not layer._forward_hooks for layer in layers)


def test_it_can_be_switched_off_and_keeps_off_what_it_does_not_understand(make_architecture):
    model = make_architecture("llama")
    assert HiddenStore(0).stack(model, EMBED, keys(0, 1)) is None
    assert HiddenStore(1 << 20).stack(model, EMBED, keys(0, 1, 2)) is None
