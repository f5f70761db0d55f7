import pytest
from sqlalchemy import select

from core.errors import CancelledError, ConflictError, LeaseLostError
from core.objective import TaskSpec
from core.outcomes import Outcomes, bits
from core.records import StepKind
from core.scores import macro_of, score_of
from core.states import JobState, StepState, TrialState
from core.tasks import order
from evaluation.scorer import Scorer
from store import jobs, outcomes, steps, tasks
from store import tables as rows
from tests.store.makers import put
from tests.workers.conftest import SMALL
from workers.heart import Heart
from workers.runner import run_trial


@pytest.fixture
def scored(monkeypatch):
    """Blocks of four documents; what was handed over is written down as (model, task, number)."""
    seen, score = [], Scorer.score

    def watched(self, model, task, numbers, *, on_block, **options):
        def keep(block):
            on_block(block)
            seen.extend((task, number) for number in block.numbers)

        return score(self, model, task, numbers, on_block=keep, **options | {"block_items": 4})

    monkeypatch.setattr(Scorer, "score", watched)
    return seen


def all_rows(service):
    with service.database.reading() as session:
        return session.execute(select(rows.outcomes)).all()


def test_a_score_is_the_mean_of_correctness_and_macro_the_weighted_mean_of_scores():
    spec = TaskSpec(task="t", metric="acc")
    found = score_of(spec, Outcomes.of([(0, 1, 0.1), (5, 0, -1.0), (7, 1, 2.0), (9, 1, 0.3)]))
    assert (found.value, found.n, found.metric) == (0.75, 4, "acc")
    # Sample standard deviation of (1, 0, 1, 1) is 0.5; by the root of 4.
    assert found.stderr == pytest.approx(0.25)
    other = found.model_copy(update={"value": 0.25})
    assert macro_of([found, other], [0.8, 0.2]) == pytest.approx(0.65)


#: Nobody is judged before all items are scored.
WHOLE = {"racing": {"rungs": [32]}}


@pytest.mark.parametrize("ending", ["cancelled", "lost"])
def test_scoring_stops_between_blocks_and_what_was_committed_stands(service, scored, ending):
    job = service.post(**SMALL | WHOLE)
    step, bench = service.until(StepKind.RUN_TRIAL), service.runner()
    end = {
        "cancelled": lambda session: jobs.cancel(session, job.id),
        "lost": lambda session: steps.release(session, "runner"),
    }[ending]

    class Watched(Heart):
        """Lets the end come after the second block, and its beat before the third."""

        @property
        def cancelled(self):
            if len(scored) == 8 and not self._stopped.is_set():
                with service.database.transaction() as session:
                    end(session)
                assert self._stopped.wait(10)
            return super().cancelled

    with Watched(service.database, step, 0.6) as heart, pytest.raises(CancelledError):
        run_trial.run(bench, step, heart)
    first = list(scored)
    assert len(first) == 8
    (row,) = all_rows(service)
    assert sorted(bits(bytes(row.presence))) == sorted(number for _, number in first)
    again = job if ending == "lost" else service.post(**SMALL | WHOLE)
    assert service.finish(again.id).state is JobState.SUCCEEDED
    trial = service.trials(again.id)[0]
    assert trial.state is TrialState.SCORED
    # Document by document, each candidate was scored once: two parents, two candidates.
    kept = all_rows(service)
    assert len(scored) == sum(len(bits(bytes(row.presence))) for row in kept) == sum(row.writes for row in kept)
    searched = sum(trial.scored_items for trial in service.trials(again.id))
    assert service.job(again.id).items_scored == searched - (8 if ending == "cancelled" else 0)


def test_a_runner_whose_lease_was_lost_writes_nothing_more(service, scored):
    service.post(**SMALL)
    step, bench = service.until(StepKind.RUN_TRIAL), service.runner()

    class Deaf(Heart):
        """Learns nothing; the lease goes after the first block."""

        @property
        def cancelled(self):
            if len(scored) == 4:
                with service.database.transaction() as session:
                    steps.release(session, "runner")
            return False

    with pytest.raises(LeaseLostError):
        run_trial.run(bench, step, Deaf(service.database, step, 60))
    assert len(scored) == 4
    (row,) = all_rows(service)
    assert row.writes == 4
    with service.database.reading() as session:
        assert steps.get(session, step.id).state is StepState.QUEUED


def test_two_jobs_that_score_one_candidate_at_once_both_succeed(service, scored):
    first, second = service.post(**SMALL), service.post(**SMALL, name="again")
    step, bench = service.until(StepKind.RUN_TRIAL), service.runner()

    class Interrupted(Heart):
        """Another runner finishes the other job in the midst of this one's blocks."""

        @property
        def cancelled(self):
            if len(scored) == 8:
                assert service.finish(second.id if step.job_id == first.id else first.id)
            return False

    run_trial.run(bench, step, Interrupted(service.database, step, 60))
    for job in (first, second):
        assert service.finish(job.id).state is JobState.SUCCEEDED, service.job(job.id).failure
    mine, theirs = service.trials(first.id), service.trials(second.id)
    assert [t.macro for t in mine[:2]] == [t.macro for t in theirs[:2]]
    total = sum(len(bits(bytes(row.presence))) for row in all_rows(service))
    search = total - 32 * len({t.recipe_digest for t in mine if t.heldout})
    assert service.job(first.id).items_scored + service.job(second.id).items_scored == search


def test_a_rung_takes_the_first_documents_of_the_studys_order(service):
    job = service.finish(service.post(**SMALL).id)
    with service.database.reading() as session:
        content = tasks.get(session, "nursery_arc", job.contents["nursery_arc"])
        for trial in service.trials(job.id):
            have = outcomes.load(session, trial.recipe_digest, job.fingerprints["nursery_arc"])
            wanted = order(job.request.seed, content.content_digest, content.side("search"))[: trial.scored_items]
            assert set(have.numbers) & set(content.side("search")) == set(wanted)
            (score,) = trial.scores
            right = have.select(wanted).correct
            assert (score.value, score.n) == (sum(right) / len(right), len(wanted))
            assert trial.heard[-1].items == trial.heard[-1].n == len(wanted)


def test_a_job_that_began_on_another_kind_of_worker_is_not_mixed(service):
    job = service.post(**SMALL)
    step = service.until(StepKind.RUN_TRIAL)
    with service.database.transaction() as session:
        jobs.pin_fingerprints(session, job.id, {"nursery_arc": "0" * 64})
    with pytest.raises(ConflictError, match="workers of one kind"):
        run_trial.run(service.runner(), step, Heart(service.database, step, 60))
    assert not all_rows(service)
    # Run by a worker, it fails its trial and with it, being a parent, the job.
    with service.database.transaction() as session:
        steps.release(session, "runner")
        put(session, "steps", step.id, attempts=1)
    assert service.finish(job.id).state is JobState.FAILED
    assert service.job(job.id).failure.code == "conflict"
    assert not all_rows(service)
