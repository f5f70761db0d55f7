"""Refinements within a running search, from the order to the race."""

import pytest

from core.errors import NonFiniteWeightsError
from core.records import StepKind
from core.states import JobState, StepState, TrialState
from store import events, steps
from tests.workers.conftest import SMALL
from workers.phases import refining

REFINE = {
    "enabled": True,
    "granularity": "both",
    "structures": 1,
    "max_items": 120,
    "batch": 6,
    "kept_most": 6,
    "polish": 2,
}
WANTED = SMALL | {
    "models": [{"name": name, "ref": f"local:nursery/{name}"} for name in ("base", "arc", "wino")],
    "space": {"families": [{"family": "merge", "methods": ["task_arithmetic"], "base": "base"}]},
    "budget": {"trials": 16},
    "refine": REFINE,
}


def events_of(service, job_id, kind):
    with service.database.reading() as session:
        return [event.payload for event in events.of_kind(session, job_id, kind)]


@pytest.fixture
def refined(service, monkeypatch):
    """A search that refined, all the way, and whose values by tensor came to nothing."""
    monkeypatch.setattr(refining, "_fine_leads", lambda *_: False)
    job = service.finish(service.post(**WANTED).id)
    assert job.state is JobState.SUCCEEDED, job.failure
    return job


def test_a_search_refines_its_best_structure_and_races_what_it_finds(service, refined):
    done = service.steps(refined.id, StepKind.REFINE)
    assert sorted(step.payload["granularity"] for step in done) == ["holes", "tensor"]
    assert all(step.state is StepState.DONE for step in done)
    every = service.trials(refined.id)
    outside = [trial for trial in every if trial.origin == "refined"]
    inside = [trial for trial in every if trial.origin == "enqueued" and trial.label.startswith("refined from")]
    assert outside
    assert inside
    assert all(trial.values is None and trial.optuna_number is None for trial in outside)
    assert all(trial.heard and trial.state in (TrialState.SCORED, TrialState.STOPPED) for trial in outside + inside)
    # Nothing was lost of the budget, and nothing was spent beyond it.
    assert len([trial for trial in every if trial.origin != "parent"]) == 16


def test_where_values_by_tensor_lead_the_structure_is_not_refined_by_hole_nor_polished(service, monkeypatch):
    known, fine_leads = [], refining._fine_leads
    monkeypatch.setattr(
        refining, "_fine_leads", lambda *a: known.append(fine_leads(*a)) or known[-1] is not None or None
    )
    job = service.finish(service.post(**WANTED).id)
    assert [step.payload["granularity"] for step in service.steps(job.id, StepKind.REFINE)] == ["tensor"]
    # While it was walked, and until what it found was heard, nobody could say; then somebody did.
    assert known[0] is None
    assert known[-1] is not None
    best = max(trial.heard[0].score for trial in service.trials(job.id) if trial.origin == "refined")
    others = [trial.heard[0].score for trial in service.trials(job.id) if trial.values is not None and trial.heard]
    assert known[-1] == (best > max(others))


def test_the_best_refined_candidate_of_the_space_is_polished(service):
    job = service.finish(service.post(**WANTED | {"refine": REFINE | {"granularity": "holes"}}).id)
    every = service.trials(job.id)
    assert any(trial.label.startswith("refined from") for trial in every)
    assert len([trial for trial in every if trial.label.startswith("near number")]) == 2


def test_what_a_refinement_costs_is_counted_and_its_way_is_told(service, refined):
    for step in service.steps(refined.id, StepKind.REFINE):
        trajectory = step.result["trajectory"]
        assert trajectory[0]["step"] == 0
        assert trajectory[-1]["items"] == step.result["items"] <= 120
        assert step.result["seconds"] > 0
    told = events_of(service, refined.id, "refine_progress")
    looks = sum(len(step.result["trajectory"]) for step in service.steps(refined.id, StepKind.REFINE))
    assert len(told) == looks
    scored = sum((step.result or {}).get("items", 0) for step in service.steps(refined.id, StepKind.RUN_TRIAL))
    spent = sum(step.result["items"] for step in service.steps(refined.id, StepKind.REFINE))
    assert refined.items_scored == scored + spent


def test_a_refinement_that_fails_costs_its_items_and_nothing_else(service, monkeypatch):
    def fail(*_, **__):
        raise NonFiniteWeightsError("broken")

    monkeypatch.setattr("workers.runner.refining.differentiate", fail)
    job = service.finish(service.post(**WANTED | {"budget": {"trials": 4}}).id)
    assert job.state is JobState.SUCCEEDED, job.failure
    assert {step.state for step in service.steps(job.id, StepKind.REFINE)} == {StepState.FAILED}
    assert not [trial for trial in service.trials(job.id) if trial.origin == "refined"]


def test_a_strategy_that_was_named_refines_only_where_it_is_asked(service):
    wanted = WANTED | {"strategy": {"name": "random"}, "budget": {"trials": 3}}
    plain = service.finish(service.post(**wanted | {"refine": {}}).id)
    assert service.steps(plain.id, StepKind.REFINE) == []


def test_a_search_whose_budget_is_spent_stops_what_is_being_refined(service):
    job = service.post(**WANTED)
    step = service.until(StepKind.REFINE)
    with service.database.transaction() as session:
        refining.stop(session, job.id)
    with service.database.reading() as session:
        assert steps.get(session, step.id).state is StepState.CANCELLED
    assert refined_under_way(service, job.id) == 0


def refined_under_way(service, job_id):
    with service.database.reading() as session:
        return refining.under_way(session, job_id)


def test_room_is_kept_for_what_is_being_refined(service):
    job = service.post(**WANTED)
    service.until(StepKind.REFINE)
    with service.database.reading() as session:
        assert refining.reserved(session, job.id) == refining.POINTS * refined_under_way(service, job.id) > 0
