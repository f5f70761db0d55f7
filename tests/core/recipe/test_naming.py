from core.model import Header, Model, TensorInfo
from core.recipe import Recipe, resolve
from core.recipe.naming import source_names

HEADER = Header(
    model_type="llama",
    config="{}",
    layers=2,
    vocab_size=8,
    tensors=tuple(
        TensorInfo(name=name, dtype="F32", shape=(8, 8))
        for name in sorted(
            ("lm_head.weight", "model.embed_tokens.weight", "model.norm.weight", "model.layers.0.a", "model.layers.1.a")
        )
    ),
)
MODELS = {name: Model(name=name, ref=name, weights_digest=f"digest {name}", header=HEADER) for name in "abc"}
DIGESTS = {name: model.weights_digest for name, model in MODELS.items()}


def recipe(**form) -> Recipe:
    return Recipe.model_validate({"sources": [{"name": f"x{name}", "model": name} for name in "abc"], **form})


def test_sources_that_are_all_used_keep_their_names_in_order():
    wanted = recipe(merge={"method": "linear"})
    assert source_names(wanted, resolve(wanted, MODELS), {}) == ("xa", "xb", "xc")


def test_a_source_that_is_not_used_is_passed_over():
    for used in (["xa", "xc"], ["xb", "xc"], ["xc"]):
        wanted = recipe(merge={"method": "linear", "sources": used})
        assert source_names(wanted, resolve(wanted, MODELS), DIGESTS) == tuple(used)


def test_a_recipe_within_a_recipe_has_the_outer_name():
    inner = recipe(merge={"method": "linear", "sources": ["xa", "xb"]}).model_dump(exclude_none=True)
    wanted = Recipe.model_validate(
        {
            "sources": [
                {"name": "unused", "model": "a"},
                {"name": "blend", "recipe": inner},
                {"name": "c", "model": "c"},
            ],
            "merge": {"method": "slerp", "sources": ["blend", "c"]},
        }
    )
    assert source_names(wanted, resolve(wanted, MODELS), DIGESTS) == ("blend", "c")
