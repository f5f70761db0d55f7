import pytest

from core.errors import LayoutError, MissingCheckpointError, ParentsDoNotFitError, RecipeError, SpaceError
from core.jobs import SearchJob
from core.model import Header, Model, TensorInfo
from core.parents import check_parents


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


@pytest.mark.parametrize("params", [{"weight": 0.0}, {"density": 1.5}])
def test_fixed_values_that_no_tensor_may_have_are_refused(params):
    with pytest.raises((RecipeError, SpaceError)):
        check_parents(job({**MERGE, "methods": ["ties"], "params": params}), {n: model(n) for n in ("base", "a", "b")})


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
