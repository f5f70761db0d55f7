import json
from pathlib import Path

import pytest

from core.generators import PRESETS
from core.jobs import GeneratorJob, SearchJob, check_job, read_job

FOLDER = Path("examples/generation")


def test_the_card_trains_with_its_preset():
    job = read_job(json.loads((FOLDER / "train.json").read_text()))
    assert isinstance(job, GeneratorJob)
    assert job.preset == "explore-llama" and set(PRESETS["explore-llama"]) <= set(job.settings.model_dump())


@pytest.mark.parametrize("named", ["artifact_01M7X94QRF67DP39GHZ62R7SPK", "0" * 64])
def test_the_card_s_selection_can_be_checked_before_it_is_posted_however_the_generator_is_named(named):
    job = read_job(json.loads((FOLDER / "select.json").read_text().replace("GENERATOR", named)))
    assert isinstance(job, SearchJob)
    check_job(job, tasks={"winogrande", "arc_challenge"})
    assert 15 <= job.budget.trials <= 50


def test_the_card_is_also_one_job_with_its_preset():
    job = read_job(json.loads((FOLDER / "card.json").read_text()))
    assert isinstance(job, SearchJob)
    check_job(job, tasks={"winogrande", "arc_challenge", "hellaswag"})
    assert [spec.task for spec in job.confirmation.also] == ["hellaswag"]
    assert job.lesson is not None and job.lesson.models == ("base",)
    trained = read_job(json.loads((FOLDER / "train.json").read_text()))
    assert job.lesson.settings == trained.lesson.settings
    assert 15 <= job.budget.trials <= 50


def test_a_search_of_all_families_trains_on_its_elite():
    job = read_job(json.loads((FOLDER / "elite.json").read_text()))
    check_job(job, tasks={"nursery_arc", "nursery_winogrande"})
    assert [family.family for family in job.space.families] == ["merge", "layout", "generation"]
    assert job.sampled.around == "best"
