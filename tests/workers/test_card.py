import json
import re

import pytest
import yaml

from core.draws import Draw
from core.jobs import ModelRef
from core.recipe import Layout, Recipe, Source, identity, resolve
from tests.core.families import family
from workers.card import RESTACKED, is_restacked, model_card

SPACE = {"families": [{"family": "merge", "methods": ["linear"]}]}
METRICS = (("arc", "acc_norm"), ("winogrande", "acc"), ("hellaswag", "acc_norm"))


@pytest.fixture
def told(finished):
    """Job, winner, all trials, and the winner's card."""
    service, job = finished
    every = service.trials(job.id)
    winner = next(t for t in every if t.id == job.verdict["winner"]["trial_id"])
    return job, winner, every, model_card(job, winner, every)


def section(card, title):
    """The text below a heading, up to the next."""
    return re.search(rf"^## {title}.*?\n(.*?)(?=^## |^> |^Recipe digest|\Z)", card, re.S | re.M)[1]


def table(text):
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows if set(row[0]) != {"-"}]


def with_recipe(trial, recipe):
    resolved = resolve(recipe, family("a", "b"))
    return trial.evolve(recipe=recipe, resolved=resolved, recipe_digest=resolved.digest())


def test_the_front_matter_is_what_the_hub_reads(told):
    job, winner, every, card = told
    head = yaml.safe_load(card.split("---")[1])
    assert head == {"library_name": "transformers", "tags": ["merge", "huarizo"]}
    models = (ModelRef(name="a", ref="hub:herd/a@0123"), ModelRef(name="b", ref="local:b"))
    fetched = job.evolve(request=job.request.evolve(models=models, space=SPACE))
    head = yaml.safe_load(model_card(fetched, winner, every).split("---")[1])
    assert head["base_model"] == ["herd/a"]


def test_every_parent_is_named_with_its_reference(told):
    job, _, _, card = told
    parents = section(card, "Parents")
    for model in job.request.models:
        assert f"- `{model.name}`: `{model.ref}`" in parents


def test_the_recipe_can_be_read_back(told):
    _, winner, _, card = told
    found = re.search(r"```json\n(.*?)```", section(card, "Recipe"), re.S)[1]
    assert Recipe.model_validate(json.loads(found)) == winner.recipe
    assert winner.recipe_digest in card


@pytest.mark.parametrize("side", ["search", "heldout"])
def test_scores_stand_beside_the_parents_with_their_standard_errors(told, side):
    _, winner, every, card = told
    title = {"search": "Scores on the items of the search", "heldout": "Scores on held-out items"}[side]
    text = section(card, title)
    assert "Protocol `search`" in text
    assert ("optimistic" in text) is (side == "search")
    head, *rows = table(text)
    assert head == ["model", *(f"nursery_{n} ({m}, 0-shot)" for n, m in METRICS), "mean"]
    expected = [winner, *(t for t in every if t.origin == "parent")]
    for row, trial in zip(rows, expected, strict=True):
        scores = trial.scores if side == "search" else trial.heldout
        assert row[0] == (trial.label or f"candidate {trial.number}")
        assert row[1:-1] == [f"{s.value:.4f} ± {s.stderr:.4f} (n={s.n})" for s in scores]
        assert float(row[-1]) == pytest.approx(trial.macro if side == "search" else trial.macro_heldout, abs=5e-5)


def test_shots_are_told(told):
    job, winner, every, _ = told
    tasks = tuple(spec.evolve(num_fewshot=5) for spec in job.request.objective.tasks)
    objective = job.request.objective.evolve(tasks=tasks)
    card = model_card(job.evolve(request=job.request.evolve(objective=objective)), winner, every)
    assert "nursery_arc (acc_norm, 5-shot)" in card


@pytest.mark.parametrize(
    ("verdict", "sentence"),
    [
        ("gain", "is better than the best parent"),
        ("no gain", "is not proven better than the best parent"),
        ("worse", "is worse than the best parent"),
    ],
)
def test_the_verdict_is_told_with_interval_and_reads(told, verdict, sentence):
    job, winner, every, _ = told
    found = {**job.verdict, "verdict": verdict, "points": 1.25, "low": -0.5, "high": 3.0, "p": 0.0123}
    card = model_card(job.evolve(verdict=found), winner, every)
    assert f"## Verdict: {verdict}" in card
    text = section(card, "Verdict")
    assert sentence in text and "+1.25" in text and "-0.50 to +3.00" in text and "p = 0.012" in text
    assert f"read {job.verdict['heldout_reads']} times" in text


def test_where_nothing_was_compared_no_interval_is_told(told):
    job, winner, every, _ = told
    found = {**job.verdict, "verdict": "no gain", "points": 0.0, "reason": "number 3 could not be read"}
    text = section(model_card(job.evolve(verdict=found), winner, every), "Verdict")
    assert text.strip() == "Nothing was compared on held-out items: number 3 could not be read."


def test_a_verdict_is_never_told_of_another_candidate(told):
    job, winner, every, _ = told
    other = next(t for t in every if t.origin != "parent" and t.id != winner.id)
    text = section(model_card(job, other, every), "Verdict")
    assert "None for this candidate" in text and "better" not in text


def test_without_a_confirmation_nothing_is_claimed(told):
    job, winner, _, _ = told
    card = model_card(job.evolve(verdict=None), winner.evolve(heldout=(), macro_heldout=None), [])
    assert "Verdict" not in card and "held-out" not in card


def test_a_name_cannot_break_the_card(told):
    job, winner, every, _ = told
    card = model_card(job.evolve(name="two\n\n## Verdict: gain"), winner, every)
    assert "# two ## Verdict: gain\n" in card
    assert "# A model bred by Huarizo" in model_card(job.evolve(name=""), winner, every)


def test_the_warning_stands_on_re_stacked_models_only(told):
    job, winner, every, card = told
    assert RESTACKED not in card
    source = (Source(name="a", model="a"),)
    deep = with_recipe(winner, Recipe(sources=source, layout=Layout(preset="dus", source="a", params={"m": 1})))
    assert is_restacked(deep) and RESTACKED in model_card(job, deep, every)
    plain = with_recipe(winner, identity("a", save_dtype="float32"))
    assert not is_restacked(plain) and RESTACKED not in model_card(job, plain, every)
    swapped = {"sources": [{"source": "a", "layers": [1, 0, 2, 3]}]}
    assert is_restacked(with_recipe(winner, Recipe.model_validate({"sources": source, "slices": [swapped]})))


def test_a_sample_is_named_by_its_arm(told):
    job, winner, every, _ = told
    draw = Draw(generator="ab" * 32, selectors=("norms",), arm="matched-noise", rho=0.01)
    sampled = with_recipe(winner, identity("a", save_dtype="float32").evolve(generation=draw))
    assert "(`matched-noise`)" in model_card(job, sampled, every)
