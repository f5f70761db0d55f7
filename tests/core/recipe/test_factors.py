import math

import pytest

from core.errors import LayoutError
from core.model import Header, Model, TensorInfo
from core.noun import canonical_json
from core.recipe import Part, Recipe, resolve

ROOT = math.sqrt(0.5)
LLAMA = ("self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.o_proj.weight", "mlp.down_proj.weight", "x")
NORMED = ("self_attn.q_norm.weight", "self_attn.k_norm.weight")
POST = ("post_attention_layernorm.weight", "post_feedforward_layernorm.weight")
TENSORS = {
    "llama": LLAMA,
    "mistral": LLAMA,
    "qwen2": (*LLAMA, "self_attn.q_proj.bias", "self_attn.k_proj.bias"),
    "qwen3": (*LLAMA, *NORMED),
    "gemma2": (*LLAMA, *POST),
    "gemma3_text": (*LLAMA, *NORMED, *POST),
    "phi3": ("self_attn.qkv_proj.weight", "self_attn.o_proj.weight", "mlp.down_proj.weight", "x"),
    "gpt2": (
        *("attn.c_attn.weight", "attn.c_attn.bias", "attn.c_proj.weight", "attn.c_proj.bias"),
        *("mlp.c_proj.weight", "mlp.c_proj.bias", "x"),
    ),
    "gpt_neox": (
        *("attention.query_key_value.weight", "attention.query_key_value.bias", "attention.dense.weight"),
        *("attention.dense.bias", "mlp.dense_4h_to_h.weight", "mlp.dense_4h_to_h.bias", "x"),
    ),
}
SIZES = {"num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 32, "n_head": 4, "n_embd": 32}


def model(kind, tensors=None):
    family = Header(model_type=kind, config="{}", layers=1, vocab_size=8, tensors=()).architecture
    names = [family.layer_tensor(i, suffix) for i in range(3) for suffix in tensors or TENSORS[kind]]
    names += [*family.embed, *family.head]
    header = Header(
        model_type=kind,
        config=canonical_json(SIZES),
        layers=3,
        vocab_size=8,
        tensors=tuple(TensorInfo(name=name, dtype="F32", shape=(96, 32)) for name in sorted(names)),
    )
    return Model(name="a", ref="local:a", weights_digest="digest", header=header)


def values(kind, place, tensors=None, **form):
    """(scale, part, shift) by suffix, of the tensors of one output layer that have any."""
    wanted = Recipe.model_validate({"sources": [{"name": "a", "model": "a"}], **form})
    entry = resolve(wanted, {"a": model(kind, tensors)}).layers[place]
    found = {name: (g.scale, g.part, g.shift) for g in entry.groups for name in g.tensors}
    return {name: value for name, value in found.items() if value != (1.0, None, 0.0)}


def stack(*layers, **repeated):
    return {"slices": [{"sources": [{"source": "a", "layers": layers}]}], "repeated": repeated}


@pytest.mark.parametrize("kind", sorted(TENSORS))
def test_only_the_second_and_later_occurrences_of_a_layer_are_scaled(kind):
    form = stack(0, 1, 0, 2, 1, 0, output=0.6)
    assert [bool(values(kind, place, **form)) for place in range(6)] == [False, False, True, False, True, True]
    assert values(kind, 2, **form) == values(kind, 5, **form)


@pytest.mark.parametrize(
    ("kind", "takers"),
    [
        ("llama", LLAMA[:2]),
        ("mistral", LLAMA[:2]),
        ("qwen2", (*LLAMA[:2], "self_attn.q_proj.bias", "self_attn.k_proj.bias")),
        ("qwen3", NORMED),
        ("gemma2", LLAMA[:2]),
    ],
)
def test_half_the_logits_is_the_root_of_a_half_on_queries_and_keys(kind, takers):
    assert values(kind, 1, **stack(0, 0)) == dict.fromkeys(takers, (ROOT, None, 0.0))


def test_norms_that_multiply_by_one_plus_their_weight_are_shifted_too():
    found = values("gemma3_text", 1, **stack(0, 0, output=0.6))
    assert found == {
        **dict.fromkeys(NORMED, (ROOT, None, ROOT - 1.0)),
        **dict.fromkeys(POST, (0.6, None, 0.6 - 1.0)),
    }


@pytest.mark.parametrize(
    ("kind", "tensors", "part"),
    [
        # 4 query heads, 2 key and 2 value heads of width 8.
        ("phi3", ("self_attn.qkv_proj.weight",), Part(axis=0, period=64, length=48, scale=ROOT)),
        ("gpt2", ("attn.c_attn.weight", "attn.c_attn.bias"), Part(axis=-1, period=96, length=64, scale=ROOT)),
        (
            "gpt_neox",
            ("attention.query_key_value.weight", "attention.query_key_value.bias"),
            Part(axis=0, period=24, length=16, scale=ROOT),
        ),
    ],
)
def test_of_a_fused_projection_the_rows_of_queries_and_keys_are_scaled(kind, tensors, part):
    if kind != "phi3":
        # These have as many key heads as query heads; what else their config says is not read.
        assert "num_key_value_heads" not in model(kind).header.architecture.meaning
    sizes = SIZES if kind == "phi3" else {key: v for key, v in SIZES.items() if key != "num_key_value_heads"}
    wanted = Recipe.model_validate({"sources": [{"name": "a", "model": "a"}], **stack(0, 0)})
    known = model(kind)
    known = known.evolve(header=known.header.evolve(config=canonical_json(sizes)))
    groups = resolve(wanted, {"a": known}).layers[1].groups
    assert {name: g.part for g in groups for name in g.tensors if g.part} == dict.fromkeys(tensors, part)


@pytest.mark.parametrize(
    ("kind", "takers"),
    [
        ("llama", LLAMA[2:4]),
        ("phi3", LLAMA[2:4]),
        ("gpt2", TENSORS["gpt2"][2:6]),
        ("gpt_neox", TENSORS["gpt_neox"][2:6]),
    ],
)
def test_outputs_are_the_last_projections_with_their_biases(kind, takers):
    form = stack(0, 0, attention=1.0, output=0.7)
    assert values(kind, 1, **form) == dict.fromkeys(takers, (0.7, None, 0.0))


def path(include, scales, **more):
    return {"path": {"sources": ["a"], "repeats": 2, "include": include, "scales": scales}, **more}


def test_outputs_are_divided_by_all_factors_the_stream_has_gathered():
    form = path([1, 1, 0, 1, 0, 1], [2.0, None, None, 0.25, None, 5.0])
    found = [values("llama", place, **form)[LLAMA[2]][0] for place in range(4) if place != 3]
    assert found == [1 / 2.0, 1 / 2.0, 1 / 0.5]
    assert values("llama", 3, **form) == dict.fromkeys(LLAMA[2:4], (1 / 2.5, None, 0.0))
    assert values("gemma2", 0, **form) == dict.fromkeys(POST, (0.5, None, -0.5))


def test_a_repeated_layer_on_a_path_gets_both_factors():
    form = path([1, 0, 0, 1, 0, 0], [None, None, None, 4.0, None, None], repeated={"attention": 1.0, "output": 0.5})
    assert values("llama", 1, **form) == dict.fromkeys(LLAMA[2:4], (0.125, None, 0.0))
    assert values("gemma2", 1, **form) == dict.fromkeys(POST, (0.125, None, -0.875))


def test_a_factor_multiplies_the_recipes_own_scale():
    form = stack(0, 0, output=0.5)
    form["slices"][0]["params"] = {"scale": [{"filter": "down_proj", "value": 3.0}]}
    assert values("llama", 0, **form) == {"mlp.down_proj.weight": (3.0, None, 0.0)}
    assert values("llama", 1, **form)["mlp.down_proj.weight"] == (1.5, None, 0.0)


def test_factors_of_one_change_no_digest_and_others_change_the_keys_of_their_layers_alone():
    def resolved(**repeated):
        wanted = {"sources": [{"name": "a", "model": "a"}], **stack(0, 1, 1)}
        wanted = {**wanted, "repeated": repeated} if repeated else {k: v for k, v in wanted.items() if k != "repeated"}
        return resolve(Recipe.model_validate(wanted), {"a": model("llama")})

    plain, one, half = resolved(), resolved(attention=1.0, output=1.0), resolved(attention=0.5)
    assert plain.digest() == one.digest() != half.digest()
    assert plain.layer_keys()[:2] == half.layer_keys()[:2]
    assert plain.layer_keys()[2] != half.layer_keys()[2]
    assert "part" not in plain.model_dump_json() and "shift" not in plain.model_dump_json()
    assert type(half).model_validate_json(half.model_dump_json()).digest() == half.digest()


@pytest.mark.parametrize(
    ("tensors", "repeated"),
    [(("x", "self_attn.o_proj.weight"), {}), (("x", "self_attn.q_proj.weight"), {"attention": 1.0, "output": 0.5})],
)
def test_a_factor_that_no_tensor_takes_is_refused(tensors, repeated):
    with pytest.raises(LayoutError, match="to scale"):
        values("llama", 1, tensors, **stack(0, 0, **repeated))


@pytest.mark.parametrize(("scale", "slots"), [(0.001, 9), (16.0, 21), (0.001, 200), (16.0, 400)])
def test_scales_that_gather_until_weights_vanish_or_overflow_are_refused(scale, slots):
    slots += slots % 3 and 3 - slots % 3
    wanted = {"sources": ["a"], "repeats": slots // 3, "include": [True] * slots, "scales": [scale] * slots}
    if slots // 3 > 64:
        wanted["repeats"], wanted["include"], wanted["scales"] = 64, [True] * 192, [scale] * 192
    with pytest.raises(LayoutError, match="take scales nearer to 1"):
        values("llama", 0, path=wanted)


def test_a_factor_that_leaves_nothing_of_a_scale_is_refused():
    form = stack(0, 0, output=0.001)
    form["slices"][0]["params"] = {"scale": 1e-37}
    with pytest.raises(LayoutError, match="take a `scale` nearer to 1"):
        values("llama", 1, **form)
