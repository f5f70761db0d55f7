import pytest
from families import family

from core.adapters import Adapter, AdapterHeader, Change, adapt, adapted_digest
from core.errors import ParentsDoNotFitError, RecipeError, UnknownModelError
from core.model import TensorInfo
from core.recipe import Recipe, ResolvedRecipe, resolve
from core.recipe.ingredients import models_in, names_in

Q = "model.layers.0.self_attn.q_proj"
LORA = Adapter(
    name="lora",
    ref="local:lora",
    weights_digest="digest-of-lora",
    header=AdapterHeader(
        tensors=(TensorInfo(name="a", dtype="F32", shape=(2, 8)), TensorInfo(name="b", dtype="F32", shape=(8, 2))),
        changes=(Change(module=Q, kind="linear", a="a", b="b", scale=2.0),),
    ),
)
REGISTERED = {**family("base", "other"), "lora": LORA}
ADAPTED = {"name": "maths", "model": "base", "adapter": "lora"}
MERGE = {"method": "task_arithmetic", "base": "base"}


def recipe(*sources, **form) -> Recipe:
    named = [s if isinstance(s, dict) else {"name": s, "model": s} for s in sources]
    return Recipe.model_validate({"sources": named, "merge": MERGE, **form})


def test_a_recipe_of_plain_models_has_the_digest_it_always_had():
    plain = Recipe.model_validate(
        {
            "sources": [{"name": n, "model": n} for n in ("base", "a", "b")],
            "merge": {"method": "linear", "params": {"weight": 0.5}},
        }
    )
    known = "fe8b79ca387ba59db31dd573f94f4ed2afff2bd731cea1cf6f2f3b794bd35ae1"
    assert resolve(plain, family("base", "a", "b")).digest() == known


def test_a_source_with_an_adapter_is_named_by_the_content_of_both():
    resolved = resolve(recipe("base", ADAPTED), REGISTERED)
    base, maths = resolved.sources
    assert (base.kind, maths.kind) == ("model", "adapter")
    assert (maths.weights, maths.adapter, maths.config) == ("digest-of-base", "digest-of-lora", base.config)
    assert maths.source_digest == adapted_digest("digest-of-base", "digest-of-lora")
    assert resolved.model_digests() == ("digest-of-base", maths.source_digest)
    assert ResolvedRecipe.model_validate_json(resolved.model_dump_json()) == resolved


def test_a_model_that_is_registered_adapted_is_the_same_ingredient():
    named = {**REGISTERED, "maths": adapt(REGISTERED["base"], LORA, name="maths")}
    assert resolve(recipe("base", "maths"), named) == resolve(recipe("base", ADAPTED), REGISTERED)


def test_an_adapted_source_may_give_the_tokenizer_and_stand_in_nested_recipes():
    inner = {"name": "inner", "recipe": recipe("base", ADAPTED).model_dump()}
    nested = recipe("base", inner, tokenizer="inner")
    resolved = resolve(nested, REGISTERED)
    assert resolved.tokenizer_donor() == "digest-of-base"
    donor = resolve(recipe("base", ADAPTED, tokenizer="maths"), REGISTERED).tokenizer_donor()
    assert donor == adapted_digest("digest-of-base", "digest-of-lora")
    assert set(models_in(nested, REGISTERED)) == set(resolved.model_digests()) == {"digest-of-base", donor}
    assert names_in(nested) == ("base", "lora")


@pytest.mark.parametrize(
    ("source", "error", "what"),
    [
        ({"name": "x", "model": "lora"}, RecipeError, "`adapter`"),
        ({"name": "x", "model": "base", "adapter": "other"}, RecipeError, "must name an adapter"),
        ({"name": "x", "model": "base", "adapter": "loar"}, UnknownModelError, "lora"),
        ({"name": "x", "model": "nobody", "adapter": "lora"}, UnknownModelError, "nobody"),
    ],
)
def test_models_and_adapters_are_not_mistaken_for_one_another(source, error, what):
    with pytest.raises(error, match=what) as caught:
        resolve(recipe("base", source), REGISTERED)
    assert caught.value.where == "sources.x"


def test_an_adapter_of_another_base_is_refused_before_anything_is_read():
    deep = LORA.header.changes[0].evolve(module=Q.replace(".0.", ".7."))
    wrong = LORA.evolve(header=LORA.header.evolve(changes=(deep,)))
    with pytest.raises(ParentsDoNotFitError, match="which its base has not"):
        resolve(recipe("base", ADAPTED), {**REGISTERED, "lora": wrong})
