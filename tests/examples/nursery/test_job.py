import json
from pathlib import Path

import examples.nursery
from core.jobs import SearchJob, check_job
from examples.nursery.corpus import SKILLS
from examples.nursery.tasks import BENCHMARKS

TEXT = (Path(examples.nursery.__file__).parent / "job.json").read_text()


def test_the_example_job_is_well_formed_and_its_space_compiles():
    job = SearchJob.model_validate_json(TEXT)
    check_job(job, tasks={benchmark.name for benchmark in BENCHMARKS.values()})
    assert job.search_space(depth=6).holes


def test_the_example_job_names_every_member_of_the_family_and_every_task():
    job = json.loads(TEXT)
    assert {model["ref"] for model in job["models"]} == {f"local:nursery/{part}" for part in ("base", *SKILLS)}
    asked = {spec["task"]: spec["metric"] for spec in job["objective"]["tasks"]}
    assert asked == {"nursery_arc": "acc_norm", "nursery_winogrande": "acc", "nursery_hellaswag": "acc_norm"}
