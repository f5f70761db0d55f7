from api.schemas.trials import family_of
from core.recipe.short import Recipe
from core.records import JobTally, TrialSummary
from core.states import TrialState
from store import summaries, trials
from tests.store.makers import FAILURE, new_job, new_trial, score


def scored(s, job_id, macro, items=50, **fields):
    trial = new_trial(s, job_id, **fields)
    trials.move(s, trial.id, TrialState.RUNNING)
    return trials.record(s, trial.id, scored_items=items, scores=[score(macro)], macro=macro, seconds_added=1.5)


def test_a_summary_says_what_the_trial_says_but_for_its_recipe(database):
    layout = {"sources": [{"name": "a", "model": "a"}], "layout": {"preset": "dus", "source": "a", "params": {"m": 1}}}
    draw = {"generator": "ab" * 32, "selectors": ["norms"], "arm": "posterior"}
    drawn = {"sources": [{"name": "a", "model": "a"}], "merge": {"method": "passthrough"}, "generation": draw}
    with database.transaction() as s:
        job = new_job(s)
        scored(s, job.id, 0.5, label="uniform")
        failed = new_trial(s, job.id, recipe=Recipe.model_validate(layout))
        trials.fail(s, failed.id, FAILURE)
        new_trial(s, job.id, recipe=Recipe.model_validate(drawn))
        new_trial(s, new_job(s, seed=2).id)
    with database.reading() as s:
        found, full = summaries.of_job(s, job.id), trials.of_job(s, job.id)
    assert [(t.family, t.method) for t in found] == [
        ("merge", "passthrough"),
        ("layout", "dus"),
        ("generation", "posterior"),
    ]
    assert [family_of(trial.recipe) for trial in full] == [(trial.family, trial.method) for trial in found]
    shared = set(TrialSummary.model_fields) & set(type(full[0]).model_fields)
    assert len(shared) == len(TrialSummary.model_fields) - 2
    for short, long in zip(found, full, strict=True):
        assert {name: getattr(short, name) for name in shared} == {name: getattr(long, name) for name in shared}


def test_pages_hold_the_same_trials_in_the_same_order_as_the_full_ones(database):
    with database.transaction() as s:
        job = new_job(s)
        for macro in (0.5, 0.7, 0.7, 0.6):
            scored(s, job.id, macro)
        new_trial(s, job.id)
    with database.reading() as s:
        for order in ("number", "score"):
            seen, full, cursor = [], [], None
            while True:
                short, long = (noun.page(s, job.id, 2, cursor, order) for noun in (summaries, trials))
                assert short.next_cursor == long.next_cursor
                seen += [trial.id for trial in short.items]
                full += [trial.id for trial in long.items]
                cursor = short.next_cursor
                if cursor is None:
                    break
            assert seen == full and len(seen) == 5


def test_a_tally_compares_only_those_scored_on_most_items(database):
    with database.transaction() as s:
        job, empty = new_job(s), new_job(s, seed=2)
        scored(s, job.id, 0.9, items=50)
        scored(s, job.id, 0.6, items=200)
        scored(s, job.id, 0.7, items=200)
        scored(s, job.id, 0.65, items=200, origin="parent")
        new_trial(s, job.id)
    with database.reading() as s:
        found = summaries.tallies(s, [job.id, empty.id])
    assert found[job.id] == JobTally(job_id=job.id, states={"queued": 1, "running": 3}, best=0.7, parent=0.65)
    assert found[empty.id] == JobTally(job_id=empty.id)


def test_no_jobs_have_no_tallies(database):
    with database.reading() as s:
        assert summaries.tallies(s, []) == {}
