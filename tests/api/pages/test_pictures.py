from __future__ import annotations

import pytest

from api.pages import pictures
from core.model import Model
from core.recipe import Recipe, resolve, resolve_named
from tests.api import seeds


@pytest.fixture(scope="module")
def known() -> dict[str, Model]:
    return {
        name: Model(name=name, ref=f"local:{name}", weights_digest=seeds.digest(name), header=seeds.header())
        for name in seeds.PARENTS
    }


def layers(recipe: Recipe, known: dict[str, Model]) -> list[list[float]]:
    return [pictures.shares(entry) for entry in resolve(recipe, known).layers]


def test_weights_that_are_normalised_are_their_parts(known):
    # 0.9 and 0.3 at the bottom of the stack, changing places at its top.
    found = layers(seeds.linear(0.9, 0.3), known)
    assert found[0] == pytest.approx([0.75, 0.25])
    assert found[-1] == pytest.approx([0.25, 0.75])


def test_slerp_shares_by_t(known):
    assert layers(seeds.slerp(0.41), known) == [pytest.approx([0.59, 0.41])] * 8


def test_a_base_has_what_the_task_vectors_leave(known):
    params = {"weight": {"maths": 0.5, "code": 0.25}}
    recipe = Recipe.model_validate(
        {
            "sources": [{"name": name, "model": name} for name in seeds.PARENTS],
            "merge": {"method": "task_arithmetic", "base": "base", "params": params},
        }
    )
    resolved, names = resolve_named(recipe, known)
    entry = resolved.layers[0]
    found = {names[source]: share for (source, _), share in zip(entry.sources, pictures.shares(entry), strict=True)}
    assert found == pytest.approx({"base": 0.25, "maths": 0.5, "code": 0.25})


def test_negative_weights_count_by_their_size(known):
    recipe = Recipe.model_validate(
        {
            "sources": [{"name": name, "model": name} for name in ("maths", "code")],
            "merge": {"method": "linear", "params": {"weight": {"maths": 1.5, "code": -0.5}}},
        }
    )
    assert layers(recipe, known)[0] == pytest.approx([0.75, 0.25])


def test_a_restacked_candidate_shows_each_layer_where_it_came_from(known):
    recipe = seeds.dus("code", 2)
    resolved, names = resolve_named(recipe, known)
    rows = pictures.slots(resolved, names, {"base": 0, "maths": 1, "code": 2})
    assert [row.label for row in rows] == ["embed", *map(str, range(12)), "head"]
    assert [row.parts[0][2] for row in rows[1:-1]] == ["0", "1", "2", "3", "4", "5", "2", "3", "4", "5", "6", "7"]
    assert {row.parts[0][0] for row in rows} == {2} and {row.parts[0][1] for row in rows} == {1.0}
