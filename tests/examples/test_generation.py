import json
from pathlib import Path

import pytest

from core.generators import PRESETS
from core.jobs import GeneratorJob, SearchJob, check_job, read_job
from core.rungs import rung_sizes

FOLDER = Path("examples/generation")
DIGEST = "0" * 64
TASKS = {"winogrande", "arc_challenge", "hellaswag"}


def posted(name, generator=DIGEST):
    return read_job(json.loads((FOLDER / name).read_text().replace("GENERATOR", generator)))


def test_the_card_trains_with_its_preset():
    job = posted("train.json")
    assert isinstance(job, GeneratorJob)
    assert job.preset == "explore-llama" and set(PRESETS["explore-llama"]) <= set(job.settings.model_dump())


@pytest.mark.parametrize("named", ["artifact_01M7X94QRF67DP39GHZ62R7SPK", DIGEST])
def test_the_card_s_selection_can_be_checked_before_it_is_posted_however_the_generator_is_named(named):
    job = posted("select.json", named)
    assert isinstance(job, SearchJob)
    check_job(job, tasks=TASKS)
    assert 15 <= job.budget.trials <= 50


@pytest.mark.parametrize("name", ["card.json", "card-anchored.json"])
def test_the_card_is_also_one_job_with_its_preset(name):
    job = posted(name)
    assert isinstance(job, SearchJob)
    check_job(job, tasks=TASKS)
    assert [spec.task for spec in job.confirmation.also] == ["hellaswag"]
    assert job.lesson is not None and job.lesson.models == ("base",)
    assert job.lesson.settings == posted("train.json").lesson.settings
    assert 15 <= job.budget.trials <= 50


def test_one_job_and_two_jobs_search_the_same_and_confirm_the_same():
    one, two = posted("card.json"), posted("select.json")
    (family,) = one.space.families
    assert two.space.families == (family.opened(DIGEST),)
    changed = {"name": two.name, "space": two.space}
    assert one.evolve(**changed) == two


@pytest.mark.parametrize("name", ["card.json", "select.json"])
def test_the_card_s_samples_come_from_noise_alone_are_all_different_and_are_read_in_full(name):
    job = posted(name)
    assert rung_sizes(job.racing, (633, 586)) == (633,)
    space = job.whole_space(depth=32)
    assert [hole.name for hole in space.holes] == ["generation.diffusion.tau"]
    spec = space.holes[0].spec
    taus = [spec.search_low + k * (spec.search_high - spec.search_low) / 31 for k in range(32)]
    draws = [space.fill({"generation.diffusion.tau": tau}).generation for tau in taus]
    assert len({draw.seed for draw in draws}) == 32
    for draw in draws:
        assert (draw.arm, draw.mode, draw.rho) == ("diffusion", "absolute", None)
        assert (draw.strength, draw.blend, draw.eta, draw.coefficients) == (1.0, 1.0, 1.0, ())
        assert draw.tau == pytest.approx(1.0, abs=0.0101)


def test_the_second_stage_of_the_card_is_asked_for_by_its_preset():
    told = json.loads((FOLDER / "card.json").read_text())
    told["space"]["families"][0]["generator"]["preset"] = "explore-llama-layers"
    job = read_job(told)
    check_job(job, tasks=TASKS)
    assert job.lesson.settings.selectors == ("block:-1", "ffn:30", "ffn:24")


def test_a_search_of_all_families_trains_on_its_elite():
    job = posted("elite.json")
    check_job(job, tasks={"nursery_arc", "nursery_winogrande"})
    assert [family.family for family in job.space.families] == ["merge", "layout", "generation"]
    assert job.sampled.around == "best"
