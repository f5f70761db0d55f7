from __future__ import annotations

import pytest

from core.errors import ConflictError, InvalidInputError, NotFoundError
from core.recipe.short import Layout, Recipe, Source, identity
from core.records import Device, HeardScore, StepKind, TrialBrief
from core.states import TRIAL_MOVES, JobState, StepState, TrialState
from store import events, jobs, steps, trials
from store.steps import PROMOTION
from tests.store.makers import AWKWARD, FAILURE, at_once, claim, new_job, new_trial, put, resolved, score


@pytest.fixture
def job(database):
    with database.transaction() as s:
        return new_job(s)


def _steps(s, trial):
    return [step for step in steps.of_job(s, trial.job_id) if step.trial_id == trial.id]


def test_a_new_trial_has_the_next_number_a_step_an_event_and_a_bell(database, job):
    with database.transaction() as s:
        first, second = new_trial(s, job.id), new_trial(s, job.id, device=Device.CUDA, priority=7, optuna_number=3)
        assert (first.number, second.number, second.optuna_number) == (0, 1, 3)
        assert second.state is TrialState.QUEUED
        (step,) = _steps(s, second)
        assert (step.kind, step.device, step.priority) == (StepKind.RUN_TRIAL, Device.CUDA, 7)
        assert ("cuda", "run_trial", step.id) in s.bells
        assert [e.payload["number"] for e in events.of_kind(s, job.id, "trial_state")] == [0, 1]


def test_recipes_come_back_to_the_last_bit_so_that_their_digest_holds(database, job):
    recipe = Recipe(
        sources=(Source(name="a", model="a"),), layout=Layout(preset="dus", source="a", params={"m": 2}), seed=2**62
    )
    wanted = resolved(**AWKWARD)
    with database.transaction() as s:
        made = new_trial(s, job.id, recipe=recipe, resolved=wanted, values=AWKWARD)
    with database.reading() as s:
        kept = trials.get(s, made.id)
    assert kept == made
    assert kept.recipe == recipe
    assert repr(kept.values) == repr(AWKWARD)
    assert kept.resolved.digest() == kept.recipe_digest == wanted.digest()


def test_a_parent_has_no_values(database, job):
    with database.transaction() as s:
        parent = new_trial(s, job.id, origin="parent", label="a", values=None)
    assert (parent.values, parent.label) == (None, "a")


def test_trials_created_at_once_have_different_numbers(database, job):
    def create(_: int) -> int:
        with database.transaction() as s:
            return new_trial(s, job.id).number

    assert sorted(at_once(create, 8)) == list(range(8))


def test_an_ended_job_has_no_new_trials(database, job):
    with database.transaction() as s:
        jobs.cancel(s, job.id)
        with pytest.raises(ConflictError, match="is cancelled"):
            new_trial(s, job.id)
        with pytest.raises(NotFoundError):
            new_trial(s, "job_0")


def test_every_pair_of_states_is_a_move_or_a_conflict(database, job):
    with database.transaction() as s:
        trial = new_trial(s, job.id)
    for source in TrialState:
        for target in TrialState:
            with database.transaction() as s:
                put(s, "trials", trial.id, state=source.value)
                if target in TRIAL_MOVES[source]:
                    moved = trials.move(s, trial.id, target)
                    assert moved.state is target
                    assert (moved.finished_at is not None) is target.final
                    put(s, "trials", trial.id, finished_at=None)
                else:
                    with pytest.raises(ConflictError, match=f"is {source}"):
                        trials.move(s, trial.id, target)


def test_a_move_tells_of_itself_and_sets_what_it_may(database, job):
    with database.transaction() as s:
        trial = new_trial(s, job.id)
        trials.move(s, trial.id, TrialState.RUNNING)
        failed = trials.fail(s, trial.id, FAILURE)
        assert (failed.state, failed.failure) == (TrialState.FAILED, FAILURE)
        assert [e.payload["state"] for e in events.of_kind(s, job.id, "trial_state")] == ["queued", "running", "failed"]
        with pytest.raises(ValueError, match="recipe"):
            trials.move(s, trial.id, TrialState.RUNNING, recipe=None)


def test_an_ended_trial_leaves_no_step_on_the_queue(database, job):
    with database.transaction() as s:
        trial = new_trial(s, job.id)
        trials.move(s, trial.id, TrialState.CANCELLED)
        assert [step.state for step in _steps(s, trial)] == [StepState.CANCELLED]
        assert claim(s, Device.CPU) is None


def test_a_promotion_raises_the_target_and_queues_a_step_ahead_of_new_trials(database, job):
    with database.transaction() as s:
        trial = new_trial(s, job.id)
        held = claim(s, Device.CPU)
        trials.move(s, trial.id, TrialState.RUNNING)
        trials.move(s, trial.id, TrialState.WAITING)
        steps.finish(s, held.id, held.fence)
        new_trial(s, job.id)
    with database.transaction() as s:
        raised = trials.raise_target(s, trial.id, 200, 1, Device.CPU)
        assert (raised.target_items, raised.rung, raised.state) == (200, 1, TrialState.WAITING)
        assert [step.state for step in _steps(s, trial)] == [StepState.DONE, StepState.QUEUED]
        assert [e.payload["target_items"] for e in events.of_kind(s, job.id, "trial_target")] == [200]
    with database.transaction() as s:
        best = claim(s, Device.CPU)
    assert (best.trial_id, best.priority) == (trial.id, PROMOTION)


def test_a_promotion_that_is_rolled_back_leaves_neither_target_nor_step(database, job):
    with database.transaction() as s:
        trial = new_trial(s, job.id)
        trials.move(s, trial.id, TrialState.RUNNING)

    def promote_and_crash() -> None:
        with database.transaction() as s:
            trials.raise_target(s, trial.id, 200, 1, Device.CPU)
            raise RuntimeError("midway")

    with pytest.raises(RuntimeError, match="midway"):
        promote_and_crash()
    with database.reading() as s:
        assert trials.get(s, trial.id).target_items == 50
        assert len(_steps(s, trial)) == 1


def test_only_a_waiting_or_running_trial_is_promoted_and_only_upwards(database, job):
    with database.transaction() as s:
        trial = new_trial(s, job.id)
    for state in TrialState:
        with database.transaction() as s:
            put(s, "trials", trial.id, state=state.value, target_items=50)
            if state in (TrialState.WAITING, TrialState.RUNNING):
                trials.raise_target(s, trial.id, 200, 1, Device.CPU)
                with pytest.raises(ConflictError, match="only rises"):
                    trials.raise_target(s, trial.id, 200, 1, Device.CPU)
            else:
                with pytest.raises(ConflictError, match="promoted"):
                    trials.raise_target(s, trial.id, 200, 1, Device.CPU)


def test_records_replace_scores_add_seconds_and_merge_provenance(database, job):
    with database.transaction() as s:
        trial = new_trial(s, job.id)
        trials.move(s, trial.id, TrialState.RUNNING)
        trials.record(
            s,
            trial.id,
            scored_items=50,
            scores=[score(0.25)],
            macro=0.25,
            seconds_added=1.5,
            provenance={"device": "cpu", "torch": "1"},
            weights_digest="w",
        )
        found = trials.record(
            s,
            trial.id,
            scored_items=200,
            scores=[score(0.5, n=200)],
            macro=0.5,
            seconds_added=2.0,
            provenance={"torch": "2"},
        )
    assert (found.scored_items, found.scores, found.macro) == (200, (score(0.5, n=200),), 0.5)
    assert found.seconds == 3.5
    assert found.provenance == {"device": "cpu", "torch": "2"}
    assert found.weights_digest == "w"


def test_held_out_scores_stand_beside_the_search_scores(database, job):
    with database.transaction() as s:
        trial = new_trial(s, job.id)
        trials.move(s, trial.id, TrialState.RUNNING)
        trials.move(s, trial.id, TrialState.SCORED)
        found = trials.record_heldout(s, trial.id, [score(0.4)], 0.4)
    assert (found.heldout, found.macro_heldout, found.scores, found.macro) == ((score(0.4),), 0.4, (), None)


@pytest.mark.parametrize("state", ["queued", "failed", "cancelled"])
def test_nothing_is_recorded_for_a_trial_that_never_ran_or_came_to_nothing(database, job, state):
    with database.transaction() as s:
        trial = new_trial(s, job.id)
        put(s, "trials", trial.id, state=state)
        with pytest.raises(ConflictError):
            trials.record(s, trial.id, scored_items=1, scores=[], macro=None, seconds_added=0)
        with pytest.raises(ConflictError):
            trials.record_heldout(s, trial.id, [], None)


def test_what_the_sampler_heard_is_marked_with_its_number(database, job):
    with database.transaction() as s:
        trial = new_trial(s, job.id)
        trials.mark_told(s, trial.id, 41)
        found = trials.get(s, trial.id)
    assert (found.told, found.optuna_number) == (True, 41)


def test_trials_of_a_job_can_be_chosen_by_state(database, job):
    with database.transaction() as s:
        first, second = new_trial(s, job.id), new_trial(s, job.id)
        trials.move(s, first.id, TrialState.RUNNING)
        assert [t.id for t in trials.of_job(s, job.id)] == [first.id, second.id]
        assert [t.id for t in trials.of_job(s, job.id, (TrialState.RUNNING,))] == [first.id]
        assert trials.of_job(s, job.id, ()) == []


def _walk(s, job, order, limit):
    cursor, numbers = None, []
    while True:
        page = trials.page(s, job.id, limit, cursor, order)
        numbers += [trial.number for trial in page.items]
        if (cursor := page.next_cursor) is None:
            return numbers


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
def test_pages_by_score_put_the_best_first_ties_by_number_and_unscored_last(database, job, limit):
    macros = [0.5, None, 0.9, 0.5, 0.1, None, 0.1 + 0.2]
    with database.transaction() as s:
        for macro in macros:
            put(s, "trials", new_trial(s, job.id).id, macro=macro)
        assert _walk(s, job, "number", limit) == list(range(7))
        assert _walk(s, job, "score", limit) == [2, 0, 3, 6, 4, 1, 5]


def test_a_cursor_of_one_order_does_not_fit_the_other(database, job):
    with database.transaction() as s:
        new_trial(s, job.id), new_trial(s, job.id)
        cursor = trials.page(s, job.id, 1).next_cursor
        with pytest.raises(InvalidInputError, match="cursor"):
            trials.page(s, job.id, 1, cursor, "score")


def test_trials_of_another_job_are_not_listed(database, job):
    with database.transaction() as s:
        other = new_job(s, JobState.RUNNING)
        new_trial(s, other.id, recipe=identity("b", save_dtype="float32"))
        mine = new_trial(s, job.id)
        assert [t.id for t in trials.page(s, job.id, 9).items] == [mine.id]
        assert mine.number == 0


def test_what_was_heard_is_kept_digit_by_digit_and_is_in_briefs_too(database):
    heard = [
        HeardScore(items=50, score=0.1 + 0.2, variance=1e-17, n=150, tasks=(1 / 3, 0.0)),
        HeardScore(items=200, score=0.5, variance=0.25, n=600),
    ]
    with database.transaction() as s:
        job = new_job(s)
        first, second = new_trial(s, job.id), new_trial(s, job.id)
        trials.move(s, first.id, TrialState.RUNNING)
        trials.hear(s, first.id, heard)
        with pytest.raises(ConflictError, match="be heard"):
            trials.hear(s, second.id, heard)
    with database.reading() as s:
        found, other = trials.briefs(s, job.id)
        kept = trials.get(s, first.id)
        assert [trial.number for trial in trials.some(s, [second.id, first.id])] == [0, 1]
        assert trials.some(s, []) == [] and trials.values_of(s, []) == {}
        assert trials.values_of(s, [first.id]) == {first.id: first.values}
    assert kept.heard == found.heard == tuple(heard) and other.heard == ()
    assert all(getattr(found, field) == getattr(kept, field) for field in TrialBrief.__slots__)
    # Not scored on as many items as it was heard on: there is no last word.
    assert kept.last_heard is None and kept.evolve(scored_items=200).last_heard == heard[1]
