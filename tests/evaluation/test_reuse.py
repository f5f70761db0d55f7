from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from core.objective import TaskSpec
from evaluation.likelihood import LikelihoodReader, Packing
from evaluation.prepare import prepare
from evaluation.reuse import HEIGHTS, IDLE, HiddenStore, body_layers, reading_name
from evaluation.scorer import Layers, Scorer, never

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


@pytest.fixture(scope="module")
def prepared(folders, tokenizer_folder):
    """Two tasks, the second with examples."""
    specs = [TaskSpec(task="winogrande"), TaskSpec(task="arc_easy", num_fewshot=2)]
    return prepare(specs, tokenizer_folder, folders, max_length=512)


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
    assert (first.cuts, first.spread) == (frozenset(), list(range(3, 24, 3))) and len(first.spread) < HEIGHTS
    kin = store.stack(model, EMBED, keys(*range(11), *range(100, 113)))
    assert (kin.cuts, kin.spread) == (frozenset({11}), [])


PASSES = [f"pass {number}" for number in range(10)]
#: Bytes of one pass's hidden states.
ONE = 2 * 12 * 32 * 4


@pytest.fixture(scope="module")
def deep(make_architecture):
    """Eight layers."""
    return restack(make_architecture("llama"), [0, 1] * 4)


@pytest.fixture
def calls(deep, forward):
    """How many layers each pass of a candidate reads."""
    counted = Counted(deep)

    def candidate(store, *names, study=""):
        stack, found = store.stack(deep, EMBED, keys(*names), study), []
        for reading in PASSES:
            counted.calls = 0
            read = lambda: forward(deep)  # noqa: E731
            found.append((read() if stack is None else stack.read(reading, read)) is not None and counted.calls)
        return found

    return candidate


@pytest.mark.parametrize("room", [5, 10, 20, 70])
def test_a_store_too_small_for_all_passes_serves_those_that_it_has_room_for(room, calls):
    """Every candidate reads the passes in the same order: what gave way to a later pass would never be found."""
    store = HiddenStore(room * ONE)
    assert calls(store, *range(8)) == [8] * 10
    second = calls(store, *range(6), 8, 9)
    assert sum(count < 8 for count in second) == min(10, room)
    # With little room, one height in the middle is kept, with more of it the ones around it, too.
    assert second[0] == {5: 4, 10: 4, 20: 4, 70: 2}[room]
    assert sum(count < 8 for count in calls(store, *range(7), 9)) == min(10, room)


def test_what_has_served_stays_while_it_is_used_and_makes_room_for_another_study(calls):
    store = HiddenStore(10 * ONE)
    calls(store, *range(8))
    assert calls(store, *range(6), 8, 9) == [4] * 10
    for stranger in range(1, 6):
        assert calls(store, *range(100 * stranger, 100 * stranger + 8)) == [8] * 10
    assert calls(store, *range(6), 10, 11) == [4] * 10
    assert calls(store, *range(900, 908), study="another") == [8] * 10
    assert calls(store, *range(900, 906), 8, 9, study="another") == [4] * 10


def test_what_nobody_stood_on_for_long_makes_room(calls):
    store = HiddenStore(10 * ONE)
    calls(store, *range(8))
    for stranger in range(1, IDLE + 1):
        calls(store, *range(100 * stranger, 100 * stranger + 8))
    last = 100 * IDLE
    assert calls(store, *range(last, last + 6), 8, 9) == [4] * 10


def test_where_candidates_are_known_to_part_is_worth_more_than_what_nobody_came_for(calls):
    store = HiddenStore(10 * ONE)
    calls(store, *range(8))
    # These two part from each other at 6, and from the first at once.
    assert calls(store, *range(100, 108)) == [8] * 10
    assert calls(store, *range(100, 106), 8, 9) == [8] * 10
    assert calls(store, *range(100, 106), 9, 8) == [2] * 10


def test_without_a_study_of_stacks_nothing_is_kept_until_two_candidates_share_a_beginning(deep, calls):
    store = HiddenStore(1 << 24)
    for stranger in range(3):
        assert store.stack(deep, EMBED, keys(*range(100 * stranger, 100 * stranger + 8)), None) is None
    assert calls(store, *range(5), 11, 12, 13, study=None) == [8] * 10
    assert calls(store, *range(5), 14, 15, 16, study=None) == [3] * 10


def test_states_larger_than_the_store_are_not_kept(make_architecture, forward):
    model = restack(make_architecture("llama"), [0, 1])
    store = HiddenStore(ONE - 1)
    counted = Counted(model)
    for _ in range(2):
        counted.calls = 0
        assert store.stack(model, EMBED, keys(0, 1)).read("a", lambda: forward(model)) is not None
        assert counted.calls == 2


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


AMPLE = 1 << 28
CASES = [
    (name, trunk, room) for name in [*FAMILIES, "qwen3", "mistral"] for trunk, room in [(None, AMPLE), (40, AMPLE)]
]
QUICK = [("llama", None, AMPLE), ("gemma2", 40, AMPLE), ("gpt2", 40, AMPLE)]


@pytest.mark.parametrize(
    ("name", "lone_trunk", "room"),
    [*QUICK, *(pytest.param(*case, marks=pytest.mark.slow) for case in CASES if case not in QUICK)],
)
def test_log_likelihoods_are_the_same_to_the_last_bit_with_and_without(
    name, lone_trunk, room, make_architecture, prepared
):
    """Trunks of their own, shared beginnings, packed rows, and two candidates that part at layer 2."""
    whole = restack(make_architecture(name), [0, 1, 0, 1])
    other = restack(make_architecture(name), [0, 1, 1, 0, 1])
    trees = [document.tree for task in prepared.tasks.values() for document in task.documents]
    packing = Packing(row_nodes=64, crown_nodes=128, lone_trunk=lone_trunk)
    device = torch.device("cpu")
    store = HiddenStore(room)
    for model, layers in ((whole, keys(0, 1, 0, 1)), (other, keys(0, 1, 1, 0, 1)), (other, keys(0, 1, 1, 0, 1))):
        plain = LikelihoodReader(device, packing=packing).read(model, trees, cancelled=never)
        counted = Counted(model)
        stack = store.stack(model, EMBED, layers)
        found = LikelihoodReader(device, packing=packing).read(model, trees, cancelled=never, stack=stack)
        for one, another in zip(plain, found, strict=True):
            np.testing.assert_array_equal(one.sums, another.sums)
            np.testing.assert_array_equal(one.greedy, another.greedy)
        last = counted.calls, len(layers)
    passes = len({reading for group in store._groups.values() for reading in group.states})
    assert last[0] < passes * last[1]


def test_a_trunk_is_read_anew_where_what_stands_on_it_must_begin_below(make_architecture, prepared, monkeypatch):
    model = restack(make_architecture("llama"), [0, 1, 0, 1, 0, 1])
    trees = [document.tree for document in prepared.tasks["arc_easy"].documents]
    reader = LikelihoodReader(torch.device("cpu"), packing=Packing(64, 128, lone_trunk=40))
    plain = reader.read(model, trees, cancelled=never)
    store, layers = HiddenStore(AMPLE), keys(*range(6))
    stack = store.stack(model, EMBED, layers)
    reader.read(model, trees, cancelled=never, stack=stack)
    # Of every pass but the trunks', the highest states are forgotten.
    trunks = {reading_name(tree.tokens[: tree.trunk]) for tree in trees}
    for below in stack.chain[3:]:
        states = store._groups[below].states if below in store._groups else {}
        for reading in states.keys() - trunks:
            del states[reading]
    whole, real = [], LikelihoodReader._read_trunk
    monkeypatch.setattr(
        LikelihoodReader, "_read_trunk", lambda *args, **options: whole.append(options) or real(*args, **options)
    )
    found = reader.read(model, trees, cancelled=never, stack=stack)
    assert {"whole": True} in whole and {} in whole
    for one, another in zip(plain, found, strict=True):
        np.testing.assert_array_equal(one.sums, another.sums)


def test_outcomes_are_the_same_with_and_without(make_model, prepared):
    model = restack(make_model(), [0, 1, 0])
    options = {"device": torch.device("cpu"), "dtype": torch.float32}
    with_reuse = Scorer(prepared, **options, hidden=HiddenStore(1 << 28))
    without = Scorer(prepared, **options)
    for _ in range(2):
        for task in prepared.tasks:
            numbers = range(prepared.tasks[task].content.documents)
            found = with_reuse.score(model, task, numbers, layers=Layers(EMBED, keys(0, 1, 0)), block_items=5)
            assert found == without.score(model, task, numbers, block_items=5)
