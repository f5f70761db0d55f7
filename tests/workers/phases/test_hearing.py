import numpy as np
import optuna
import pytest
from sqlalchemy import text

from core.errors import OutOfMemoryError
from core.records import StepKind, TrialBrief
from core.states import JobState, TrialState
from search.scores import paired, smooth
from search.study import storage_url
from store import events, outcomes, trials
from tests.workers.phases.conftest import CONTENT, FINGERPRINT, begun, failing, measured
from workers.phases import hearing, proposers
from workers.phases.study import Search


def briefs(search):
    with search.database.reading() as session:
        return trials.briefs(session, search.job_id)


def noted(search, kind):
    with search.database.reading() as session:
        return [event.payload for event in events.of_kind(session, search.job_id, kind)]


def margins(search, trial, items):
    """Margins of a trial along the study's order."""
    with search.database.reading() as session:
        order = Search.of(session, search.job).orders[0][:items]
        have = outcomes.load(session, trial.recipe_digest, FINGERPRINT)
    found = dict(zip(have.numbers, have.margins, strict=True))
    return np.array([found[number] for number in order])


def test_the_reference_is_the_first_uniform_merge_and_runs_in_full_before_other_candidates(search):
    measured(search)
    (chosen,) = noted(search, hearing.REFERENCE)
    first, other = search.candidates[:2]
    assert chosen == {
        "recipe_digest": first.recipe_digest,
        "label": "uniform linear",
        "reason": "the study's first uniform merge",
    }
    assert (first.target_items, other.target_items) == (24, 6)
    assert search.work()
    assert [trial.scored_items for trial in search.trials[:4]] == [24, 24, 24, 0]


def test_a_space_without_merges_is_measured_against_the_first_parent(new_search):
    family = {"family": "layout", "presets": ["dus"], "sources": ["a", "b"]}
    search = begun(new_search(space={"families": [family]}))
    search.work()
    search.look()
    (chosen,) = noted(search, hearing.REFERENCE)
    assert chosen["recipe_digest"] == search.trials[0].recipe_digest and chosen["label"] == "a"


def test_a_reference_that_fails_gives_way_to_the_first_parent_for_good(search):
    failing(search, lambda trial: trial.label == "uniform linear", OutOfMemoryError("no room"))
    assert search.go().state is JobState.SUCCEEDED, search.job.failure
    first, second = noted(search, hearing.REFERENCE)
    assert first["label"] == "uniform linear"
    assert (second["label"], second["reason"]) == ("a", "the first parent, as uniform linear failed")
    heard = [trial for trial in search.trials if trial.heard]
    assert [score.variance for score in heard[0].heard] == [0.0, 0.0, 0.0]
    assert all(trial.heard[-1].variance > 0.0 for trial in heard[1:] if trial.label != "b")


def test_everybody_is_heard_at_every_rung_passed_as_the_scores_module_says(new_search):
    search = new_search(budget={"trials": 7})
    search.go()
    reference = search.candidates[0]
    theirs = smooth(margins(search, reference, 24))
    for trial in search.trials:
        assert [score.items for score in trial.heard] == [k for k in (6, 12, 24) if k <= trial.scored_items]
        for score in trial.heard:
            expected = paired([smooth(margins(search, trial, score.items))], [theirs], (1.0,))
            assert (score.score, score.variance, score.n) == (expected.score, expected.variance, score.items)
            assert score.tasks == expected.tasks
    assert {trial.state for trial in search.candidates} == {TrialState.SCORED, TrialState.STOPPED}


def test_the_sampler_is_told_what_the_rows_keep_and_a_rebuilt_study_the_same(new_search):
    search = measured(new_search(budget={"trials": 9}))
    for _ in range(9):
        search.work()
        search.look()

    def told():
        with search.database.transaction() as session:
            found = Search.of(session, search.job)
            return [
                (past.number, past.state, past.values, past.score, past.variance, past.items)
                for past in proposers.of(session, search.settings, search.job, found.space).past()
                if past.state in ("complete", "stopped")
            ]

    before = told()
    kept = {t.optuna_number: t.last_heard for t in search.candidates if t.told}
    assert {number: (s.score, s.variance, s.items) for number, s in kept.items()} == {p[0]: p[3:] for p in before}
    assert len(before) > 2
    proposers.forget(search.job_id)
    search.change(lambda session: session.execute(text("TRUNCATE optuna.studies, optuna.trials CASCADE")))
    assert told() == before


def test_nobody_is_stopped_before_the_reference_is_scored_and_workers_get_work_meanwhile(new_search):
    search = measured(new_search(parallel=2, budget={"trials": 12}))
    held = []

    def hold(search, session, step):
        if next(t for t in search.trials if t.id == step.trial_id).label == "uniform linear" and not held:
            held.append(step)  # Another runner is at it, and takes long.
            return
        work(search, session, step)

    work = search.verbs[StepKind.RUN_TRIAL]
    search.verbs[StepKind.RUN_TRIAL] = hold
    for _ in range(7):
        assert search.work()
        search.look()
    waiting = [t for t in search.candidates if t.state is TrialState.WAITING]
    # Six items each but for those that go on whatever they score: fewer than eta, parents included, had come so far.
    assert len(waiting) >= 5 and not any(trial.heard for trial in search.candidates)
    assert not any(trial.state is TrialState.STOPPED for trial in search.candidates)
    search.change(lambda session: work(search, session, held[0]))
    search.look()
    assert any(trial.state is TrialState.STOPPED for trial in search.candidates)
    assert search.go().state is JobState.SUCCEEDED, search.job.failure


def test_a_strategy_that_hears_accuracy_is_told_the_plain_mean(new_search):
    search = new_search(strategy={"name": "mergekit-evolve"}, budget={"trials": 3})
    assert search.go().state is JobState.SUCCEEDED, search.job.failure
    for trial in search.candidates:
        (score,) = trial.heard
        with search.database.reading() as session:
            correct = outcomes.load(session, trial.recipe_digest, FINGERPRINT).select(CONTENT.side("search")).correct
        share = sum(correct) / 24
        assert score.items == score.n == 24 and score.score == pytest.approx(share)
        assert score.variance == pytest.approx(share * (1 - share) / 23)
        assert trial.state is TrialState.SCORED


def test_a_brief_says_what_the_record_says(search):
    search.go()
    for brief, record in zip(briefs(search), search.trials, strict=True):
        assert isinstance(brief, TrialBrief)
        assert all(getattr(brief, name) == getattr(record, name) for name in TrialBrief.__slots__)
        assert brief.score == record.heard[-1].score


def test_the_baseline_begins_where_the_tool_begins_and_tries_no_known_good_start(new_search):
    search = new_search(strategy={"name": "mergekit-evolve"}, budget={"trials": 4})
    assert search.go().state is JobState.SUCCEEDED, search.job.failure
    assert [trial.origin for trial in search.candidates] == ["proposed"] * 4


def test_a_pareto_search_hears_of_layers_too(new_search):
    search = new_search(strategy={"name": "nsga2", "params": {"goals": "score+layers"}}, budget={"trials": 4})
    assert search.go().state is JobState.SUCCEEDED, search.job.failure
    study = optuna.load_study(study_name=search.job_id, storage=storage_url(search.settings.database_url))
    for trial in search.candidates:
        told = study.trials[trial.optuna_number]
        assert told.values == [trial.last_heard.score, float(len(trial.resolved.layers))]
