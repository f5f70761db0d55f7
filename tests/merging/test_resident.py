from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from core.errors import CheckpointError, NonFiniteCheckpointError, NonFiniteWeightsError, OutOfMemoryError
from core.recipe import Recipe, Source
from core.recipe.short import Merge
from merging import compute as compute_module
from merging import resident as resident_module
from merging import slots
from merging.compiled import Compiler
from merging.resident import Resident, weights_digest

LAYOUTS = {
    "depth up-scaling": (0, 1, 2, 1, 2, 3),
    "interlocked": (0, 1, 1, 2, 2, 3),
    "the same layer three times": (2, 2, 2),
    "a free order": (3, 0, 2, 1, 0),
}


def storage_bytes(model: PreTrainedModel) -> int:
    storages = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in model.parameters()}
    return sum(storages.values())


def rebuilt(folder: Path, layers: tuple[int, ...]) -> PreTrainedModel:
    """The re-stacked model made the obvious way: a deeper model into which layers are physically copied."""
    source = AutoModelForCausalLM.from_pretrained(folder)
    fields = {**source.config.to_dict(), "num_hidden_layers": len(layers)}
    if fields.get("layer_types"):
        fields["layer_types"] = [fields["layer_types"][layer] for layer in layers]
    config = source.config.__class__(**fields)
    deep = AutoModelForCausalLM.from_config(config).to(source.dtype).eval()
    state = {}
    for name, tensor in source.state_dict().items():
        if not name.startswith("model.layers."):
            state[name] = tensor
            continue
        _, _, index, rest = name.split(".", 3)
        for place, layer in enumerate(layers):
            if layer == int(index):
                state[f"model.layers.{place}.{rest}"] = tensor.clone()
    deep.load_state_dict(state)
    return deep


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("layers", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_a_restacked_candidate_computes_what_physically_copied_layers_compute(family, tokens, layers, use_cache):
    built = Resident(family.parents()).build(family.stack("a", layers))
    expected = rebuilt(family.folder / "a", layers)
    with torch.no_grad():
        assert torch.equal(
            built.model(tokens, use_cache=use_cache).logits, expected(tokens, use_cache=use_cache).logits
        )


@pytest.mark.parametrize("layers", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_a_restacked_candidate_continues_from_its_cache_as_if_it_had_read_everything(family, tokens, layers):
    model = Resident(family.parents()).build(family.stack("a", layers)).model
    with torch.no_grad():
        whole = model(tokens, use_cache=False).logits
        first = model(tokens[:, :3], use_cache=True)
        rest = model(tokens[:, 3:], past_key_values=first.past_key_values, use_cache=True).logits
    torch.testing.assert_close(rest, whole[:, 3:], rtol=0, atol=1e-5)
    assert [layer.self_attn.layer_idx for layer in model.model.layers] == list(range(len(layers)))


def test_a_deeper_layout_of_a_parent_takes_no_memory_beyond_the_parent(family):
    parents = family.parents()
    built = Resident(parents).build(family.stack("a", (0, 1, 2, 3) * 5))
    digest = family.models["a"].weights_digest
    theirs = {parents.tensor(digest, t.name).data_ptr() for t in family.models["a"].header.tensors}
    assert {p.data_ptr() for p in built.model.parameters()} == theirs
    assert storage_bytes(built.model) == sum(4 * t.elements for t in family.models["a"].header.tensors)


def test_merged_layers_with_one_key_share_their_tensors(family):
    source = {"sources": [{"source": s, "layers": [1, 2, 1]} for s in ("a", "b")], "method": "linear"}
    built = Resident(family.parents()).build(family.recipe(slices=(source,), save_dtype="float32"))
    first, second, third = built.model.model.layers
    assert built.layer_keys[0] == built.layer_keys[2] != built.layer_keys[1]
    assert first.self_attn.q_proj.weight is third.self_attn.q_proj.weight
    assert first.self_attn.q_proj.weight is not second.self_attn.q_proj.weight


def test_a_tied_head_stays_tied(half_family, tokens):
    model = Resident(half_family.parents()).build(half_family.merge("linear", save_dtype="bfloat16")).model
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert model.config.tie_word_embeddings


def test_the_model_is_in_the_save_dtype_in_eval_mode_and_without_gradients(family):
    model = Resident(family.parents()).build(family.merge("linear", save_dtype="bfloat16")).model
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())


def test_building_never_writes_into_a_parent(family):
    parents = family.parents()
    resident = Resident(parents)
    before = {
        (m.weights_digest, t.name): parents.tensor(m.weights_digest, t.name).clone()
        for m in family.models.values()
        for t in m.header.tensors
    }
    recipes = [
        family.stack("a", (0, 1, 2, 3)),
        family.merge("linear"),
        family.stack("b", (3, 2, 1)),
        family.merge("task_arithmetic"),
    ]
    for recipe in recipes + recipes[::-1]:
        resident.build(recipe)
        for (digest, name), tensor in before.items():
            assert torch.equal(parents.tensor(digest, name), tensor), name


def test_builds_in_any_order_give_the_bytes_of_a_fresh_build(family):
    recipes = [
        family.merge("linear"),
        family.merge("linear", weight={"a": 0.2, "b": 0.7, "c": [0.1, 0.9]}),
        family.stack("a", (0, 1, 2, 1, 2, 3)),
        family.merge("task_arithmetic", save_dtype="bfloat16"),
        family.stack("b", (1, 0), save_dtype="bfloat16"),
    ]
    fresh = [weights_digest(Resident(family.parents()).build(recipe)) for recipe in recipes]
    resident = Resident(family.parents())
    for index in (0, 1, 2, 3, 4, 3, 1, 0, 4, 2, 0, 0, 1):
        assert weights_digest(resident.build(recipes[index])) == fresh[index]


def test_only_tensors_whose_content_changed_are_computed_again(family, monkeypatch):
    computed: list[str] = []
    real = resident_module.prepare
    monkeypatch.setattr(resident_module, "prepare", lambda p, *a: (computed.append(p.name), real(p, *a))[1])
    resident = Resident(family.parents())
    resident.build(family.merge("linear", weight={"a": 0.5, "b": 0.5, "c": {"groups": [0.1, 0.1, 0.1, 0.1]}}))
    assert len(computed) == len(family.models["a"].header.tensors)
    computed.clear()
    resident.build(family.merge("linear", weight={"a": 0.5, "b": 0.5, "c": {"groups": [0.1, 0.1, 0.6, 0.1]}}))
    assert computed
    assert all(name.startswith("model.layers.2.") for name in computed)


def test_slots_are_written_again_in_place(family):
    resident = Resident(family.parents())
    first = {p.data_ptr() for p in resident.build(family.merge("linear")).model.parameters()}
    second = {p.data_ptr() for p in resident.build(family.merge("task_arithmetic")).model.parameters()}
    assert first == second


def test_a_model_that_was_replaced_by_one_of_another_shape_can_no_longer_be_used(family, tokens):
    resident = Resident(family.parents())
    old = resident.build(family.stack("a", (0, 1))).model
    resident.build(family.stack("a", (0, 1, 2)))
    assert {p.device.type for p in old.parameters()} == {"meta"}


def test_a_parent_with_a_nan_is_refused_by_the_name_of_the_tensor(family, rewrite: Callable[..., Path]):
    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.layers.2.mlp.up_proj.weight"][3, 4] = float("nan")

    broken = _with_changed(family, rewrite(family.folder / "a", spoil))
    for recipe in (broken.merge("linear", ("changed", "b")), broken.stack("changed", (0, 1, 2, 3))):
        with pytest.raises(NonFiniteCheckpointError) as caught:
            Resident(broken.parents()).build(recipe)
        assert caught.value.where == "model.layers.2.mlp.up_proj.weight"


def test_a_result_that_overflows_is_refused_by_name_and_the_next_build_is_sound(family):
    resident = Resident(family.parents())
    sound = weights_digest(resident.build(family.merge("linear")))
    huge = {"a": [{"filter": "up_proj", "value": 1e39}, {"value": 1.0}], "b": 1.0, "c": 1.0}
    with pytest.raises(NonFiniteWeightsError) as caught:
        resident.build(family.merge("task_arithmetic", weight=huge))
    assert caught.value.where == "model.layers.0.mlp.up_proj.weight"
    assert weights_digest(resident.build(family.merge("linear"))) == sound


def test_float16_overflow_is_refused(family):
    with pytest.raises(NonFiniteWeightsError):
        Resident(family.parents()).build(family.merge("linear", save_dtype="float16", scale=1e7))


def test_files_that_changed_since_registration_are_refused(family, rewrite: Callable[..., Path]):
    def drop(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.norm.weight"] = tensors["model.norm.weight"].double()

    changed = rewrite(family.folder / "a", drop)
    digest = family.models["a"].weights_digest
    from merging.sources import Parents

    with pytest.raises(CheckpointError, match=r"model\.norm\.weight"):
        Parents({digest: changed}, {digest: family.models["a"].header})


def test_what_the_last_candidate_left_is_given_up_before_memory_runs_out(family, monkeypatch):
    resident = Resident(family.parents())
    resident.build(family.merge("linear"))
    real, refusals, left = slots.in_rows, [1], []

    def full(sizes, device):
        if refusals and refusals.pop():
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        left.append(sum(gone() is None for gone in before))
        return real(sizes, device)

    before = [weakref.ref(slot.parameter) for slot in resident._slots.held.values()]
    resident._filled.empty()
    monkeypatch.setattr(slots, "in_rows", full)
    recipe = family.merge("linear", save_dtype="bfloat16")
    assert weights_digest(resident.build(recipe)) == weights_digest(Resident(family.parents()).build(recipe))
    assert left[0] == len(before) > 0


def test_a_candidate_that_does_not_fit_is_a_typed_failure_and_the_next_build_is_sound(family, monkeypatch):
    resident = Resident(family.parents())

    def full(sizes, device):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(slots, "in_rows", full)
        with pytest.raises(OutOfMemoryError, match="CUDA out of memory"):
            resident.build(family.merge("linear"))
    assert resident.build(family.merge("linear")).model.device.type == "cpu"


def test_other_runtime_errors_are_not_called_a_lack_of_memory(family, monkeypatch):
    def broken(sizes, device):
        raise RuntimeError("something else")

    monkeypatch.setattr(slots, "in_rows", broken)
    with pytest.raises(RuntimeError, match="something else"):
        Resident(family.parents()).build(family.merge("linear"))


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("kind", ["qwen2", "mistral"])
def test_other_families_with_sliding_windows_are_restacked_rightly(
    tmp_path, family, save_tokenizer, tokens, kind, use_cache
):
    config = AutoConfig.for_model(
        kind,
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=3,
        **({"use_sliding_window": True, "max_window_layers": 2} if kind == "qwen2" else {}),
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "base")
    save_tokenizer(tmp_path / "base")
    layers = (3, 0, 2, 1, 3)
    other = type(family)(tmp_path, ("base",))
    built = Resident(other.parents()).build(other.stack("base", layers))
    expected = rebuilt(tmp_path / "base", layers)
    if kind == "qwen2":
        sliding = [place for place, layer in enumerate(layers) if layer >= 2]
        assert [place for place, t in enumerate(built.model.config.layer_types) if t == "sliding_attention"] == sliding
    with torch.no_grad():
        assert torch.equal(
            built.model(tokens, use_cache=use_cache).logits, expected(tokens, use_cache=use_cache).logits
        )


def _with_changed(family, folder: Path):
    """The family with one more model that lies elsewhere."""
    import shutil

    here = folder.parent / "family"
    here.mkdir()
    for name in family.models:
        (here / name).symlink_to(family.folder / name)
    shutil.move(folder, here / folder.name)
    return type(family)(here, (*family.models, folder.name))


@pytest.mark.parametrize("save_dtype", ["bfloat16", "float16"])
def test_a_wider_forward_pass_sees_weights_that_were_rounded(family, tokens, save_dtype):
    recipe = family.stack("a", (0, 1, 1, 2, 3)).evolve(save_dtype=save_dtype)
    narrow = Resident(family.parents()).build(recipe)
    resident = Resident(family.parents(), forward_dtype=torch.float32)
    wide = resident.build(recipe)
    assert wide.model.dtype == torch.float32
    assert weights_digest(wide) == weights_digest(narrow)
    seen = dict(wide.model.named_parameters(remove_duplicate=False))
    for name, tensor in narrow.tensors.items():
        assert torch.equal(seen[name], tensor.float()), name
    first = wide.model(tokens).logits
    resident.build(family.stack("b", (0, 1, 2, 3)).evolve(save_dtype=save_dtype))
    assert torch.equal(resident.build(recipe).model(tokens).logits, first)


@pytest.mark.parametrize("mode", ["never", "always"])
@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("linear", {"weight": 1e39}),
        ("linear", {"weight": 3e38}),
        ("task_arithmetic", {"weight": 1e39, "scale": 0.0}),
        ("ties", {"weight": 1e39, "density": 1.0}),
    ],
)
def test_numbers_that_float32_does_not_hold_leave_no_weights_that_are_none(family, mode, method, params):
    resident = Resident(family.parents(), compiler=Compiler(mode))
    with pytest.raises(NonFiniteWeightsError, match="built weights must be finite"):
        resident.build(family.merge(method, **params))


def test_a_failed_build_keeps_its_memory_for_the_next(family):
    resident = Resident(family.parents())
    resident.build(family.merge("task_arithmetic", weight=0.1))
    before = {slot.memory.data_ptr() for slot in resident._slots.held.values()}
    for number in range(3):
        with pytest.raises(NonFiniteWeightsError):
            resident.build(family.merge("task_arithmetic", weight=1e39 + number * 1e38))
    recipe = family.merge("task_arithmetic", weight=0.2)
    found = weights_digest(resident.build(recipe))
    assert {slot.memory.data_ptr() for slot in resident._slots.held.values()} == before
    assert found == weights_digest(Resident(family.parents()).build(recipe))


def test_the_tensor_that_is_named_is_the_same_whatever_was_built_before(family):
    bad, resident = family.merge("linear", weight=1e39), Resident(family.parents())
    named = []
    for each in (resident, resident, Resident(family.parents())):
        with pytest.raises(NonFiniteWeightsError) as failure:
            each.build(bad)
        named.append(failure.value.where)
        resident.build(family.stack("a", (3, 1)))
        resident.build(family.merge("slerp", ("a", "b")))
    assert named == ["model.embed_tokens.weight"] * 3


def test_layouts_hold_nothing_of_sources_that_do_not_stay(family):
    resident = Resident(family.parents())
    for weight in (0.1, 0.2):
        inner = Recipe(
            sources=tuple(Source(name=name, model=name) for name in "ab"),
            merge=Merge(method="linear", params={"weight": {"a": weight, "b": 0.5}}),
        )
        merge = {"method": "linear", "sources": ["mix", "c"]}
        resident.build(
            family.recipe(sources=(Source(name="mix", recipe=inner), "c"), merge=merge, save_dtype="float32")
        )
    assert not resident._slots.layouts._known


@pytest.mark.parametrize("scope", [{}, {"trim_scope": "model"}])
def test_a_zero_and_its_negative_are_two_contents(family, scope):
    resident = Resident(family.parents())
    found = []
    for scale in (0.0, -0.0, 0.0):
        recipe = family.merge("ties", density=0.5, scale=scale, **scope)
        found.append(weights_digest(resident.build(recipe)))
        assert found[-1] == weights_digest(Resident(family.parents()).build(recipe))
    assert found[0] == found[2] != found[1]


def test_what_is_remembered_of_structures_has_an_end(family, monkeypatch):
    monkeypatch.setattr(resident_module, "KEPT_KEYS", 2)
    monkeypatch.setattr(compute_module, "HELD", 60)
    resident = Resident(family.parents())
    for seed in range(6):
        recipe = family.merge("dare_ties", density=0.5, seed=seed)
        assert weights_digest(resident.build(recipe)) == weights_digest(Resident(family.parents()).build(recipe))
        assert len(resident._keys) <= 2
        assert len(resident._held) <= 60
