"""Headers of small imaginary Llamas, for tests that need no weights."""

from core.model import Header, Model, TensorInfo
from core.noun import canonical_json

LAYER = {"self_attn.q_proj.weight": (8, 8), "mlp.up_proj.weight": (16, 8), "input_layernorm.weight": (8,)}


def header(
    layers=4, vocab=32, rope=10000.0, width=8, tokenizer="t", tied=False, model_type="llama", config=None
) -> Header:
    tensors = [
        TensorInfo(name=f"model.layers.{i}.{s}", dtype="F32", shape=tuple(width if d == 8 else d for d in shape))
        for i in range(layers)
        for s, shape in LAYER.items()
    ]
    tensors += [
        TensorInfo(name="model.embed_tokens.weight", dtype="F32", shape=(vocab, width)),
        TensorInfo(name="model.norm.weight", dtype="F32", shape=(width,)),
    ]
    if not tied:
        tensors.append(TensorInfo(name="lm_head.weight", dtype="F32", shape=(vocab, width)))
    return Header(
        model_type=model_type,
        config=canonical_json({"rope_theta": rope, **(config or {})}),
        layers=layers,
        vocab_size=vocab,
        rope_theta=rope,
        tokenizer_digest=tokenizer,
        tokenizer_files=tokenizer,
        tensors=tuple(sorted(tensors, key=lambda t: t.name)),
    )


def model(name, **options) -> Model:
    return Model(name=name, ref=f"local:{name}", weights_digest=f"digest-of-{name}", header=header(**options))


def family(*names, **options) -> dict[str, Model]:
    return {name: model(name, **options) for name in names}
