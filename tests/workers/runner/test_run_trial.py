from types import SimpleNamespace

from core.jobs import SearchJob
from core.records import Device, StepKind
from core.states import StepState, TrialState
from store import steps, trials
from tests.store.makers import claim, new_job, new_trial
from tests.workers.conftest import SMALL
from workers.heart import Heart
from workers.runner import run_trial
from workers.runner.bench import Bench
from workers.runner.scoring import CHECKED, Candidate


def test_nothing_is_built_for_a_trial_that_ended_meanwhile(database):
    with database.transaction() as s:
        trial = new_trial(s, new_job(s).id)
        step = claim(s, Device.CPU)
        trials.move(s, trial.id, TrialState.CANCELLED)
    # A workbench that can do nothing but read the store.
    run_trial.run(SimpleNamespace(database=database), step, None)
    with database.reading() as s:
        ended = steps.get(s, step.id)
    assert (ended.state, ended.result) == (StepState.DONE, {"items": 0})


def test_every_result_says_how_it_came_about(finished):
    service, job = finished
    for trial in service.trials(job.id):
        made = trial.provenance
        assert {"versions", "commit", "device", "python", "build_seconds", "score_seconds"} <= set(made)
        assert made["versions"]["lm_eval"] and trial.seconds > made["build_seconds"] > 0
        assert trial.seconds > made["score_seconds"] > 0
        assert trial.scored_items == trial.target_items


def test_every_rung_is_a_step_of_its_own(finished):
    service, job = finished
    longest = max(service.trials(job.id), key=lambda trial: len(trial.heard))
    assert longest.heard[-1].items == longest.scored_items
    rungs = [heard.items for heard in longest.heard]
    for trial in service.trials(job.id):
        ran = [step for step in service.steps(job.id, StepKind.RUN_TRIAL) if step.trial_id == trial.id]
        whole = trial.label.startswith("uniform")
        assert len(ran) == (1 if whole else sum(size <= trial.scored_items for size in rungs))
        # Three tasks; what each step scored anew adds up to what the trial was scored on.
        assert sum(step.result["items"] for step in ran) in (3 * trial.scored_items, 0)


def test_in_half_precision_the_models_a_job_begins_with_say_how_many_outcomes_are_unlike_float32(service, monkeypatch):
    monkeypatch.setattr(Bench, "_wide", None)  # As on a GPU: the forward pass is in the dtype of the weights.
    job = service.post(**SMALL | {"export": {"save_dtype": "bfloat16", "when": "never"}})
    step, bench = service.until(StepKind.RUN_TRIAL), service.runner()
    with Heart(service.database, step, 60) as heart:
        run_trial.run(bench, step, heart)
    trial = next(trial for trial in service.trials(job.id) if trial.id == step.trial_id)
    seen = trial.provenance["precision"]
    assert trial.origin == "parent" and seen["dtype"] == "bfloat16"
    assert seen["items"] == min(CHECKED, trial.scored_items) and 0 <= seen["differing"] <= seen["items"]
    assert seen["tasks"] == {"nursery_arc": {"items": seen["items"], "differing": seen["differing"]}}


def test_candidates_of_a_study_of_layouts_may_share_their_lower_layers_and_merged_ones_are_not_expected_to(finished):
    service, job = finished
    kinds = [{"families": [family]} for family in (
        {"family": "merge", "methods": ["linear"]}, {"family": "layout", "presets": ["dus"], "sources": ["base"]},
    )]  # fmt: skip
    for space, study in zip(kinds, (None, job.id), strict=True):
        posted = SearchJob.model_validate(service.job_text | {"space": space})
        recipe = service.trials(job.id)[0].resolved
        built = SimpleNamespace(layer_keys=("one", "two"))
        held = Candidate(None, None, None, job.evolve(request=posted), recipe, None, built, 0.0)
        assert held.layers == (recipe.embed_key(), ("one", "two"), study)
