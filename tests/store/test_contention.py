"""A whole service in threads: runners that sometimes die, two control workers, two reconcilers, and people who look."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter

from sqlalchemy import text

from core.errors import LeaseLostError
from core.outcomes import Outcomes
from core.records import Device, StepKind
from core.states import JobState, StepState, TrialState
from store import events, jobs, outcomes, steps, trials
from tests.store.makers import claim, new_job, new_trial, resolved, score

TRIALS, RUNGS, LEASE = 12, (10, 30), 0.4

#: Pauses after restarts would outlast a short test.
_NO_PAUSES = """UPDATE steps SET not_before = NULL WHERE id IN
    (SELECT id FROM steps WHERE not_before IS NOT NULL FOR UPDATE SKIP LOCKED)"""


class _Service:
    """Workers over two jobs, until both have succeeded."""

    def __init__(self, database):
        self.database = database
        self.errors: list[BaseException] = []
        self.deaths = 0
        self.done = threading.Event()
        with database.transaction() as s:
            self.jobs = [new_job(s).id for _ in range(2)]
            for job_id in self.jobs:
                steps.ensure_advance(s, job_id)

    def run(self, seconds):
        roles = [self.runner] * 4 + [self.control] * 2 + [self.reconciler] * 2 + [self.reader]
        threads = [threading.Thread(target=self._live, args=(role, n)) for n, role in enumerate(roles)]
        for thread in threads:
            thread.start()
        self.done.wait(seconds)
        self.done.set()
        for thread in threads:
            thread.join()

    def _live(self, role, number):
        chance = random.Random(number)
        try:
            while not self.done.is_set():
                role(f"{role.__name__} {number}", chance)
        except BaseException as error:
            self.errors.append(error)
            self.done.set()

    def runner(self, owner, chance):
        with self.database.transaction() as s:
            step = claim(s, Device.CPU, owner=owner, lease_seconds=LEASE)
            if step is not None and trials.get(s, step.trial_id).state in (TrialState.QUEUED, TrialState.WAITING):
                trials.move(s, step.trial_id, TrialState.RUNNING)
        if step is None:
            time.sleep(0.01)
            return
        if chance.random() < 0.15:  # dies, or freezes so long that another one has taken over when it comes back
            self.deaths += 1
            if chance.random() < 0.5:
                return
            time.sleep(LEASE + 0.1)
        try:
            self._score(step)
        except LeaseLostError:
            return

    def _score(self, step):
        with self.database.transaction() as s:
            assert steps.heartbeat(s, step.id, step.fence, LEASE) in ("held", "lost", "cancelled")
        with self.database.transaction() as s:
            steps.guard(s, step.id, step.fence)
            trial = trials.get(s, step.trial_id)
            known = outcomes.load(s, trial.recipe_digest, "f")
            fresh = Outcomes.of((n, 1, 0.5) for n in known.missing(range(trial.target_items)))
            outcomes.commit(
                s, recipe_digest=trial.recipe_digest, fingerprint="f", task="t", documents=30, outcomes=fresh
            )
            jobs.count(s, step.job_id, items=len(fresh))
            scores = [score(1.0, n=trial.target_items)]
            trials.record(s, trial.id, scored_items=trial.target_items, scores=scores, macro=1.0, seconds_added=0.001)
            trials.move(s, trial.id, TrialState.WAITING)
            steps.ensure_advance(s, step.job_id)
            steps.finish(s, step.id, step.fence)

    def control(self, owner, chance):
        with self.database.transaction() as s:
            step = claim(s, Device.NONE, owner=owner, lease_seconds=LEASE)
        if step is None:
            time.sleep(0.01)
            return
        if chance.random() < 0.1:
            self.deaths += 1
            return
        try:
            with self.database.transaction() as s:
                steps.guard(s, step.id, step.fence)
                self._advance(s, step.job_id)
                steps.finish(s, step.id, step.fence)
        except LeaseLostError:
            return

    def _advance(self, s, job_id):
        every = trials.of_job(s, job_id)
        for trial in every:
            if trial.state is TrialState.WAITING and trial.scored_items == trial.target_items:
                if trial.target_items == RUNGS[1]:
                    trials.move(s, trial.id, TrialState.SCORED)
                else:
                    trials.raise_target(s, trial.id, RUNGS[1], 1, Device.CPU)
        open_trials = sum(not trial.state.final for trial in every)
        for _ in range(min(4 - open_trials, TRIALS - len(every))):
            recipe = resolved(weight=len(every) + random.random())
            new_trial(s, job_id, resolved=recipe, target_items=RUNGS[0])
        if len(every) == TRIALS and not any(not t.state.final for t in trials.of_job(s, job_id)):
            jobs.move(s, job_id, JobState.SUCCEEDED)

    def reconciler(self, owner, chance):
        with self.database.transaction() as s:
            for failed in steps.expire(s, max_infra_restarts=50):
                raise AssertionError(f"{failed} came to its end")
            steps.overdue(s, 1)
            s.execute(text(_NO_PAUSES))
        with self.database.transaction() as s:
            for job_id in steps.idle_jobs(s):
                steps.ensure_advance(s, job_id)
        time.sleep(0.03)

    def reader(self, owner, chance):
        with self.database.reading() as s:
            found = [jobs.get(s, job_id).state for job_id in self.jobs]
            steps.counts(s)
            trials.page(s, self.jobs[0], 50, order="score")
        if all(state is JobState.SUCCEEDED for state in found):
            self.done.set()
        time.sleep(0.02)


def test_dying_workers_two_controllers_and_two_reconcilers_lose_nothing_and_do_nothing_twice(database):
    service = _Service(database)
    service.run(seconds=60)
    assert service.errors == []
    assert service.deaths > 2
    with database.reading() as s:
        for job_id in service.jobs:
            job = jobs.get(s, job_id)
            assert job.state is JobState.SUCCEEDED
            assert job.items_scored == TRIALS * RUNGS[1]
            every = trials.of_job(s, job_id)
            assert [trial.number for trial in every] == list(range(TRIALS))
            assert {trial.state for trial in every} == {TrialState.SCORED}
            ended = Counter(
                e.payload["number"] for e in events.of_kind(s, job_id, "trial_state") if e.payload["state"] == "scored"
            )
            assert ended == Counter(range(TRIALS))
            done = [step for step in steps.of_job(s, job_id, (StepKind.RUN_TRIAL,)) if step.state is StepState.DONE]
            assert len(done) == TRIALS * len(RUNGS)
            assert not steps.of_job(s, job_id, states=(StepState.QUEUED, StepState.RUNNING))
            restarts = sum(step.infra_restarts for step in steps.of_job(s, job_id))
            assert restarts <= sum(step.fence for step in steps.of_job(s, job_id))
        counted = s.execute(text("SELECT count(*), sum(writes), sum(bit_count(presence)) FROM outcomes")).one()
    assert counted == (2 * TRIALS, 2 * TRIALS * RUNGS[1], 2 * TRIALS * RUNGS[1])
