import pytest
from families import family

from core.draw_records import unpack
from core.draws import Draw
from core.errors import LayoutError, MergekitError, SelectorError
from core.mergekit.writing import to_mergekit
from core.recipe import Recipe, Source, resolve
from core.recipe.drawing import record_of
from core.recipe.remarks import remarks

GENERATOR = "ab" * 32


@pytest.fixture
def models():
    return family("base", "a")


def recipe(**fields):
    plain = {"sources": (Source(name="base", model="base"),), "merge": {"method": "passthrough"}}
    draw = {key: fields.pop(key) for key in list(fields) if key in Draw.model_fields}
    generation = Draw(**{"generator": GENERATOR, "selectors": ("norms",), **draw})
    return Recipe(**{**plain, "generation": generation, **fields})


def test_a_recipe_without_a_draw_says_nothing_of_one(models):
    plain = recipe().evolve(generation=None)
    assert "generation" not in plain.model_dump(mode="json")
    assert "generation" not in resolve(plain, models).model_dump(mode="json")


def test_a_draw_changes_the_digest_and_one_without_effect_does_not(models):
    plain = resolve(recipe().evolve(generation=None), models)
    drawn, other, idle = (resolve(recipe(**fields), models) for fields in ({"seed": 1}, {"seed": 2}, {"blend": 0.0}))
    assert len({plain.digest(), drawn.digest(), other.digest()}) == 3
    assert idle.digest() == plain.digest()
    assert remarks(recipe(blend=0.0), idle, models.values()) == (
        "`generation` has no effect: its strength, blend, radius, amounts or coefficients are 0.",
    )
    assert remarks(recipe(), drawn, models.values()) == ()


def test_a_candidate_keeps_the_keys_of_layers_that_are_not_sampled(models):
    plain = resolve(recipe().evolve(generation=None), models).layer_keys()
    last = resolve(recipe(selectors=("block:-1",)), models).layer_keys()
    assert last[:-1] == plain[:-1]
    assert last[-1] != plain[-1]
    depth = len(plain)
    off = resolve(recipe(amounts=(*[1.0] * (depth - 1), 0.0)), models).layer_keys()
    assert off[-1] == plain[-1]
    assert all(key != other for key, other in zip(off[:-1], plain[:-1], strict=True))


def test_a_draw_around_layers_out_of_their_places_is_refused(models):
    layout = {"preset": "permute", "source": "base", "params": {"order": [1, 0]}}
    depth = models["base"].header.layers
    layout["params"]["order"] = [1, 0, *range(2, depth)]
    with pytest.raises(LayoutError, match="recipe of its own"):
        resolve(recipe(merge=None, layout=layout), models)
    inner = Source(name="sampled", recipe=recipe())
    outer = Recipe(sources=(inner,), layout={**layout, "source": "sampled"})
    assert resolve(outer, models).sources[0].recipe.generation is not None


def test_a_draw_that_selects_nothing_is_refused(models):
    with pytest.raises(SelectorError):
        resolve(recipe(selectors=("block:99",)), models)


def test_mergekit_has_no_word_for_a_draw():
    with pytest.raises(MergekitError, match="generation"):
        to_mergekit(recipe())


def test_the_record_of_a_candidate_names_its_base_by_the_candidate_without_the_draw(models):
    drawn = resolve(recipe(rho=0.02, seed=3), models)
    draw, base = unpack(record_of(drawn))
    assert draw == drawn.generation
    assert base == resolve(recipe().evolve(generation=None), models).digest()
    assert len(record_of(drawn)) <= 120
