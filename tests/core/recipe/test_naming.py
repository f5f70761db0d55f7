import pytest

from core.model import Header, Model, TensorInfo
from core.recipe import Recipe, resolve_named
from core.recipe.naming import used_names

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


def recipe(**form) -> Recipe:
    return Recipe.model_validate({"sources": [{"name": f"x{name}", "model": name} for name in "abc"], **form})


def test_sources_that_are_all_used_keep_their_names_in_order():
    wanted = recipe(merge={"method": "linear"})
    assert resolve_named(wanted, MODELS)[1] == ("xa", "xb", "xc")


def test_a_source_that_is_not_used_is_passed_over():
    for used in (["xa", "xc"], ["xb", "xc"], ["xc"]):
        wanted = recipe(merge={"method": "linear", "sources": used})
        assert resolve_named(wanted, MODELS)[1] == tuple(used)


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
    assert resolve_named(wanted, MODELS)[1] == ("blend", "c")


BLENDS = [
    {"name": name, "recipe": recipe(merge={"method": "linear", "params": {"weight": {"xa": weight, "xb": 1, "xc": 1}}})}
    for name, weight in (("light", 1.0), ("heavy", 9.0))
]
TWINS = [{"name": "x", "model": "a"}, {"name": "y", "model": "a"}, {"name": "z", "model": "b"}]


@pytest.mark.parametrize(
    ("sources", "form", "used"),
    [
        (TWINS, {"merge": {"method": "linear", "sources": ["y", "z"]}}, ("y", "z")),
        (BLENDS, {"merge": {"method": "passthrough", "sources": ["heavy"]}}, ("heavy",)),
        (BLENDS, {"layout": {"preset": "dus", "source": "heavy", "params": {"m": 1}}}, ("heavy",)),
        (TWINS, {"slices": [{"sources": [{"source": "y", "range": [0, 1]}]}], "tokenizer": "z"}, ("y", "z")),
        (TWINS, {"path": {"sources": ["y", "z"], "include": [True, False, False, False]}}, ("y",)),
        (TWINS, {"path": {"sources": ["y", "z"], "include": [True, False, False, False], "head": "z"}}, ("y", "z")),
    ],
)
def test_sources_that_could_be_mistaken_for_one_another_keep_their_own_names(sources, form, used):
    wanted = Recipe.model_validate({"sources": sources, **form})
    resolved, names = resolve_named(wanted, MODELS)
    assert names == used
    assert len(resolved.sources) == len(names)


def test_a_merge_names_its_sources_without_their_depths():
    wanted = Recipe.model_validate({"sources": TWINS, "merge": {"method": "ties", "base": "x", "sources": ["z"]}})
    assert used_names(wanted, {}) == ("x", "z")
