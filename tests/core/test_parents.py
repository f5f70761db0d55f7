import pytest
from pydantic import ValidationError

from core.adapters import AdaptedModel, Adapter, AdapterHeader, Change
from core.errors import (
    InvalidInputError,
    LayoutError,
    MissingCheckpointError,
    ParentsDoNotFitError,
    RecipeError,
    SpaceError,
    UnknownModelError,
)
from core.jobs import ModelRef, SearchJob
from core.model import Header, Model, TensorInfo
from core.parents import check_parents, job_parents


def model(name: str, *, layers: int = 4, width: int = 8, vocab: int = 64) -> Model:
    tensors = [
        TensorInfo(name="model.embed_tokens.weight", dtype="F32", shape=(vocab, width)),
        TensorInfo(name="model.norm.weight", dtype="F32", shape=(width,)),
        TensorInfo(name="lm_head.weight", dtype="F32", shape=(vocab, width)),
    ]
    for index in range(layers):
        tensors.append(TensorInfo(name=f"model.layers.{index}.mlp.up_proj.weight", dtype="F32", shape=(16, width)))
    ordered = tuple(sorted(tensors, key=lambda tensor: tensor.name))
    header = Header(
        model_type="llama", config="{}", layers=layers, vocab_size=vocab, tokenizer_files="files", tensors=ordered
    )
    return Model(name=name, ref=f"local:{name}", weights_digest=f"digest-of-{name}", header=header)


def job(*families: dict, models: str = "base a b") -> SearchJob:
    return SearchJob.model_validate(
        {
            "models": [{"name": name, "ref": name} for name in models.split()],
            "space": {"families": list(families)},
            "objective": {"tasks": [{"task": "arc_easy"}]},
            "budget": {"trials": 5},
        }
    )


MERGE = {"family": "merge", "methods": ["linear", "slerp", "ties"], "base": "base"}
LAYOUT = {"family": "layout", "presets": ["dus", "idus"], "sources": ["a"]}


def test_parents_of_one_shape_pass_in_both_families():
    check_parents(job(MERGE, LAYOUT), {name: model(name) for name in ("base", "a", "b")})


def test_a_merge_of_different_depths_is_refused_before_all_headers_are_known():
    with pytest.raises(ParentsDoNotFitError, match="4 and 3 layers"):
        check_parents(job(MERGE), {"a": model("a"), "b": model("b", layers=3)})


def test_a_base_of_another_shape_counts_only_where_a_method_takes_it():
    models = {"base": model("base", width=4), "a": model("a"), "b": model("b")}
    check_parents(job({"family": "merge", "methods": ["linear"], "base": "base"}), models)
    with pytest.raises(ParentsDoNotFitError):
        check_parents(job(MERGE), models)


def test_layouts_take_sources_of_different_depth():
    models = {"base": model("base"), "a": model("a", layers=6), "b": model("b", layers=3)}
    check_parents(job({**LAYOUT, "sources": ["a", "b"]}), models)


def test_a_stack_too_small_for_a_layout_is_refused():
    with pytest.raises(LayoutError):
        check_parents(job(LAYOUT, models="a"), {"a": model("a", layers=1)})


@pytest.mark.parametrize(("method", "params"), [("linear", {"weight": 0.0}), ("ties", {"density": 1.5})])
def test_fixed_values_that_no_tensor_may_have_are_refused(method, params):
    models = {name: model(name) for name in ("base", "a", "b")}
    with pytest.raises((RecipeError, SpaceError)):
        check_parents(job({**MERGE, "methods": [method], "params": params}), models)


def test_one_known_parent_alone_decides_nothing():
    check_parents(job(MERGE, LAYOUT), {"a": model("a", layers=1)})


def test_a_model_without_a_tokenizer_is_refused_before_anything_is_built():
    bare = {name: model(name) for name in ("base", "a", "b")}
    bare["a"] = bare["a"].evolve(header=bare["a"].header.evolve(tokenizer_files=None))
    with pytest.raises(MissingCheckpointError, match="tokenizer"):
        check_parents(job(MERGE), bare)


def test_models_that_differ_in_their_config_alone_cannot_share_a_job():
    header = model("a").header.evolve(config='{"rms_norm_eps": 0.5}')
    twins = {"base": model("base"), "a": model("a"), "b": model("a").evolve(header=header)}
    with pytest.raises(ParentsDoNotFitError, match="under different configs"):
        check_parents(job(LAYOUT), twins)


def lora(name: str = "maths", base: str | None = "base") -> dict:
    return {"name": name, "ref": f"local:{name}"} | ({"base": base} if base else {})


def adapter(layer: int = 0) -> Adapter:
    change = Change(module=f"model.layers.{layer}.mlp.up_proj", kind="linear", a="a", b="b")
    tensors = (TensorInfo(name="a", dtype="F32", shape=(1, 8)), TensorInfo(name="b", dtype="F32", shape=(16, 1)))
    header = AdapterHeader(tensors=tensors, changes=(change,))
    return Adapter(name="maths", ref="local:maths", weights_digest="digest-of-maths", header=header)


def test_an_adapter_of_a_job_is_its_base_with_it_and_breeds_like_any_model():
    refs = [ModelRef(name="base", ref="base"), ModelRef(**lora())]
    found = job_parents(refs, {"base": model("base"), "maths": adapter()})
    assert list(found) == ["base", "maths"] and found["maths"].name == "maths"
    assert isinstance(found["maths"], AdaptedModel) and found["maths"].base == found["base"]
    text = job({**MERGE, "methods": ["ties"]}).model_dump(mode="json")
    posted = SearchJob.model_validate({**text, "models": [{"name": "base", "ref": "base"}, lora()]})
    check_parents(posted, found)
    assert "base" not in text["models"][0]


def test_what_is_not_registered_yet_is_left_out():
    refs = [ModelRef(name="base", ref="base"), ModelRef(**lora())]
    assert job_parents(refs, {"maths": adapter()}) == {}
    assert list(job_parents(refs, {"base": model("base")})) == ["base"]


@pytest.mark.parametrize(
    ("ref", "registered", "error", "what"),
    [
        (lora(base=None), adapter(), InvalidInputError, "is an adapter: name"),
        (lora(), model("maths"), InvalidInputError, "leave out its `base`"),
        (lora(), adapter(layer=9), ParentsDoNotFitError, "which its base has not"),
    ],
)
def test_an_adapter_needs_a_base_that_it_fits_and_a_model_none(ref, registered, error, what):
    with pytest.raises(error, match=what):
        job_parents([ModelRef(**ref)], {"base": model("base"), "maths": registered})


@pytest.mark.parametrize("base", ["maths", "nobody"])
def test_a_base_is_a_model_of_the_job(base):
    text = job(MERGE).model_dump(mode="json")
    with pytest.raises(ValidationError, match="must be one of the job's models"):
        SearchJob.model_validate({**text, "models": [{"name": "base", "ref": "base"}, lora(base=base)]})


def test_vocabularies_may_differ_where_the_family_aligns_them():
    models = {"base": model("base"), "a": model("a", vocab=70), "b": model("b")}
    models = {n: m.evolve(header=m.header.evolve(tokenizer_digest=str(m.header.vocab_size))) for n, m in models.items()}
    with pytest.raises(ParentsDoNotFitError, match="mode: union"):
        check_parents(job(MERGE), models)
    check_parents(job({**MERGE, "tokenizer": {"mode": "union"}}), models)


def test_every_candidate_of_a_family_that_aligns_says_so_and_may_take_another_models_tokenizer():
    aligned = {
        **MERGE,
        "methods": ["linear"],
        "base": None,
        "sources": ["a", "b"],
        "tokenizer": {"mode": "align", "source": "base"},
    }
    space = job(aligned).search_space(4)
    (recipe,) = space.uniform()
    assert [source.name for source in recipe.sources] == ["a", "b", "base"] and recipe.donor == "base"
    assert space.fill(space.read(recipe)) == recipe
    with pytest.raises(UnknownModelError, match="basis"):
        job({**aligned, "tokenizer": {"mode": "align", "source": "basis"}}).search_space(4)
