"""mergekit configurations of every shape, drawn by hypothesis, and mergekit's rules of lookup told once more."""

from __future__ import annotations

from hypothesis import strategies as st

from core.catalog import catalog
from core.mergekit.methods import METHODS

MODELS = ("base", "a", "b", "c")
LAYERS = 4
FILTERS = ("mlp", "self_attn.q_proj", "layers.1.", "layers.2", "embed", "lm_head", "model.", "nowhere")
HERE = sorted(name for name in METHODS if name in {info.name for info in catalog().methods})
#: Values that every method takes, by parameter; what is not listed is drawn from [0.1, 1].
CHOICES = {"max_iter": st.integers(1, 9), "r": st.floats(0.0, 1.0), "epsilon": st.just(0.05), "gamma": st.just(0.02)}


def scalars(parameter):
    if parameter.kind == "bool":
        return st.booleans()
    return CHOICES.get(parameter.name, st.floats(0.1, 1.0).map(lambda x: round(x, 3)))


def gradients(parameter):
    if parameter.kind == "int" or parameter.name in CHOICES:
        return scalars(parameter)
    return st.lists(scalars(parameter), min_size=1, max_size=5)


def settings(parameter):
    value = scalars(parameter) | gradients(parameter)
    entry = st.fixed_dictionaries({"value": value}, optional={"filter": st.sampled_from(FILTERS)})
    return value | st.lists(entry, min_size=1, max_size=3) | entry


def scopes(parameters):
    return st.fixed_dictionaries({}, optional={p.name: settings(p) for p in parameters})


@st.composite
def configurations(draw, method=None):
    """A configuration that mergekit takes, of a method that is here."""
    found = METHODS[draw(st.sampled_from(HERE)) if method is None else method]
    info = catalog().method(found.name)
    needs = 2 if found.name in ("slerp", "nearswap", "arcee_fusion") else 1 if found.name == "passthrough" else None
    least = 3 if found.name in ("model_stock", "nuslerp") else 2
    models = list(draw(st.permutations(MODELS)))[: needs or draw(st.integers(least, 4))]
    base = models[draw(st.integers(0, len(models) - 1))] if found.base != "ignored" else None
    if found.name == "nuslerp":
        models = [base, *[m for m in models if m != base][:2]]
    effective = [p for p in found.parameters if p.effect and p.name in {"scale", *(s.name for s in info.params)}]
    own = [p for p in effective if p.per != "all"]
    required = {p.name: draw(scalars(p)) for p in effective if p.default is None}
    config = {"merge_method": found.name, "parameters": {**draw(scopes(effective)), **required}}
    if base is not None:
        config["base_model"] = base
    if draw(st.booleans()):
        config["models"] = [{"model": m, "parameters": draw(scopes(own))} for m in models]
    else:
        config["slices"] = draw(st.lists(slices(models, effective, own), min_size=1, max_size=3))
    if draw(st.booleans()):
        donors = st.sampled_from(["base", "union", *MODELS])
        config["tokenizer"] = draw(
            st.fixed_dictionaries({"source": donors}, optional={"pad_to_multiple_of": st.just(8)})
        )
    if draw(st.booleans()):
        config["dtype"] = draw(st.sampled_from(["float32", "bfloat16"]))
    if draw(st.booleans()):
        config["out_dtype"] = draw(st.sampled_from(["float32", "bfloat16", "float16"]))
    return config


@st.composite
def staged(draw):
    """A configuration, and one of slices over its result and the models."""
    first = {**draw(configurations()), "name": "first", "dtype": "float32"}
    first.pop("tokenizer", None)
    depth = sum(
        part["sources"][0]["layer_range"][1] - part["sources"][0]["layer_range"][0] for part in first.get("slices", ())
    )
    count = draw(st.integers(1, min(depth or LAYERS, LAYERS)))
    sources = [{"model": name, "layer_range": [0, count]} for name in draw(st.permutations(["first", "a", "b"]))]
    last = {
        "slices": [{"sources": sources}],
        "merge_method": "linear",
        "parameters": {"weight": 1},
        "dtype": "bfloat16",
    }
    return {"merges": draw(st.permutations([first, last]))}


@st.composite
def slices(draw, models, effective, own):
    count = draw(st.integers(1, LAYERS))
    sources = []
    for model in models:
        start = draw(st.integers(0, LAYERS - count))
        sources.append({"model": model, "layer_range": [start, start + count], "parameters": draw(scopes(own))})
    return {"sources": sources, "parameters": draw(scopes(effective))}


def mergekits_value(parameter, scopes, tensor, t):
    """What mergekit 0.1.5 would give a tensor, from its documentation: the first scope with a value that fits."""
    for scope in scopes:
        if parameter.name in scope:
            value = _evaluated(scope[parameter.name], tensor, t)
            if value is not None:
                return value
    return parameter.default


def _evaluated(setting, tensor, t):
    if isinstance(setting, dict):
        setting = [setting]
    if not isinstance(setting, list):
        return setting
    if isinstance(setting[0], dict):
        for entry in setting:
            if entry.get("filter") in (None, "*") or entry["filter"] in tensor:
                return _evaluated(entry["value"], tensor, t)
        return None
    place = t * (len(setting) - 1)
    if isinstance(setting[0], bool):
        return setting[int(place)]
    left = int(place)
    right = min(left + 1, len(setting) - 1)
    return (1 - (place - left)) * setting[left] + (place - left) * setting[right]
