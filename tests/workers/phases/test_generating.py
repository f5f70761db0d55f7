"""A search that trains its own generator: when it is ordered, when its family opens, and what happens where it fails."""

import pytest

from core.errors import InvalidInputError
from core.records import Device, StepKind, TrialRecord
from core.states import JobState, StepState, TrialState
from search.study import Proposer
from store import artifacts, events, generators, jobs, steps
from tests.workers.phases.conftest import steady
from workers.phases import generating, proposers
from workers.processes import Process

DIGEST = "ab" * 32
MERGES = {"family": "merge", "methods": ["linear"]}
#: Stacks that are never as deep as their source.
LAYOUTS = {"family": "layout", "presets": ["repeat"], "sources": ["a"]}


def sampled(after=3, **changes):
    own = {"train_after": after, "top": 2} | changes.pop("generator", {})
    return {"family": "generation", "generator": own, "arms": ["diffusion", "matched-noise"], **changes}


def space(*families):
    return {"families": list(families)}


def trained(search, session, step):
    """What a runner leaves behind that has trained a generator."""
    about = {"digest": DIGEST, "metrics": {}, "seconds": 2.5}
    kept = artifacts.create(
        session,
        job_id=search.job_id,
        trial_id=None,
        kind=generators.KIND,
        path="generator_1",
        files=[],
        bytes=0,
        weights_digest=DIGEST,
    )
    steps.finish(session, step.id, step.fence, {"artifact": kept.id, **about})
    steps.ensure_advance(session, search.job_id)


def failing(search, session, step):
    raise InvalidInputError("nothing can be learned from these")


@pytest.fixture
def sampling(new_search):
    """Makes a search over merges that trains its own generator after three candidates."""

    def make(*families, verb=trained, **changes):
        wanted = {"space": space(*(families or (MERGES, sampled()))), "budget": {"trials": 12}}
        made = new_search(**wanted | changes)
        made.ability = lambda trial, items: min(max(steady(trial, items), 0.0), 1.0)
        made.verbs[StepKind.TRAIN_GENERATOR] = verb
        return made

    return make


def told(search, kind):
    with search.database.reading() as session:
        return [event.payload for event in events.of_kind(session, search.job_id, kind)]


def drawn(search) -> list[TrialRecord]:
    return [trial for trial in search.candidates if trial.recipe.generation is not None]


def ended(search):
    return [t for t in search.candidates if t.state in (TrialState.SCORED, TrialState.STOPPED)]


def until_ordered(search):
    for _ in range(60):
        search.look()
        if search.steps(StepKind.TRAIN_GENERATOR):
            return search
        assert search.work()
    raise AssertionError("no training was ordered")


def test_one_training_is_ordered_after_so_many_candidates_and_its_family_opens_after_it(sampling):
    search = sampling()
    assert search.go().state is JobState.SUCCEEDED
    (step,) = search.steps(StepKind.TRAIN_GENERATOR)
    (planned,), (ready,) = told(search, generators.PLANNED), told(search, generators.READY)
    assert planned["ended"] >= 3
    assert planned["early"] is False
    assert (ready["step"], ready["generator"], ready["seconds"]) == (step.id, DIGEST, 2.5)
    samples = drawn(search)
    assert samples
    assert {trial.recipe.generation.generator for trial in samples} == {DIGEST}
    assert min(trial.number for trial in samples) >= ready["trials"]
    assert all(trial.state.final for trial in samples)
    assert len(search.candidates) == 12


def test_it_learns_from_the_best_of_those_that_were_scored_on_most_items(sampling):
    search = until_ordered(sampling())
    (step,) = search.steps(StepKind.TRAIN_GENERATOR)
    best = sorted(ended(search), key=lambda t: (-t.scored_items, -t.macro, t.number))[:2]
    assert step.payload["elite"] == [trial.id for trial in best]
    assert (step.priority, step.device) == (generating.PRIORITY, Device.CPU)


def test_samples_may_lie_around_the_best_candidate_that_it_has_learned_from(sampling):
    search = sampling(MERGES, sampled(around="best"))
    search.go()
    (step,) = search.steps(StepKind.TRAIN_GENERATOR)
    best = next(trial for trial in search.candidates if trial.id == step.payload["elite"][0])
    assert drawn(search)
    assert all(trial.recipe.sources[0].recipe == best.recipe for trial in drawn(search))


def test_a_training_that_fails_leaves_the_search_going_on_without_that_family(sampling):
    search = sampling(verb=failing)
    assert search.go().state is JobState.SUCCEEDED
    (step,) = search.steps(StepKind.TRAIN_GENERATOR)
    (failed,) = told(search, generators.FAILED)
    assert (step.state, failed["code"], failed["step"]) == (StepState.FAILED, "invalid_input", step.id)
    assert not drawn(search)
    # Nothing of the budget stays behind for a family that never opens.
    assert len(search.candidates) == 12


def test_while_it_is_trained_half_of_what_is_left_waits_for_it(sampling):
    search = until_ordered(sampling(budget={"trials": 11}))
    held = search.claim(Device.CPU, StepKind.TRAIN_GENERATOR)
    search.go()
    # 3 before it, and half of the other 8.
    assert len(search.candidates) == 7
    assert search.job.state is JobState.RUNNING
    search.change(lambda session: trained(search, session, held))
    assert search.go().state is JobState.SUCCEEDED
    assert len(search.candidates) == 11
    assert drawn(search)


def test_a_search_whose_budget_is_spent_stops_the_training(sampling):
    search = until_ordered(sampling(budget={"item_evaluations": 100_000}))
    search.claim(Device.CPU, StepKind.TRAIN_GENERATOR)
    search.change(lambda s: jobs.count(s, search.job_id, items=100_000))
    search.change(lambda s: steps.ensure_advance(s, search.job_id))
    assert search.go().state is JobState.SUCCEEDED
    (step,) = search.steps(StepKind.TRAIN_GENERATOR)
    assert step.state is StepState.CANCELLED
    assert told(search, generators.READY) == told(search, generators.FAILED) == []


def test_a_generator_that_learns_from_models_alone_is_trained_first_and_may_be_all_there_is(sampling):
    search = sampling(sampled(after=0), budget={"trials": 5})
    assert search.go().state is JobState.SUCCEEDED
    (step,), (ready,) = search.steps(StepKind.TRAIN_GENERATOR), told(search, generators.READY)
    assert step.payload["elite"] == []
    assert ready["best"] is None
    proposed = [trial for trial in search.candidates if trial.origin == "proposed"]
    assert len(proposed) == 5
    assert len(drawn(search)) == len(search.candidates)


def test_a_search_that_would_only_sample_fails_with_its_training(sampling):
    job = sampling(sampled(after=0), verb=failing).go()
    assert (job.state, job.failure.code) == (JobState.FAILED, "invalid_input")


def test_a_space_that_is_used_up_before_is_reason_enough_to_train(sampling):
    # A linear merge with both weights fixed is a single candidate.
    search = sampling({**MERGES, "params": {"weight": 0.5}}, sampled(after=5), budget={"trials": 12})
    assert search.go().state is JobState.SUCCEEDED
    (planned,) = told(search, generators.PLANNED)
    assert planned["early"] is True
    assert planned["ended"] == 1
    assert len(drawn(search)) >= 5


def test_a_search_of_layouts_has_nothing_to_learn_from_and_says_so(sampling):
    search = sampling(LAYOUTS, sampled(after=1), budget={"trials": 4}, strategy={"name": "sobol"})
    assert search.go().state is JobState.SUCCEEDED
    (failed,) = told(search, generators.FAILED)
    assert failed["code"] == "invalid_input"
    assert "layers" in failed["message"]
    assert search.steps(StepKind.TRAIN_GENERATOR) == []


def test_a_pause_changes_nothing_of_it(sampling):
    search = until_ordered(sampling())
    search.change(lambda s: jobs.pause(s, search.job_id))
    assert search.claim(Device.CPU, StepKind.TRAIN_GENERATOR) is None
    search.change(lambda s: jobs.resume(s, search.job_id))
    assert search.go().state is JobState.SUCCEEDED
    assert drawn(search)


def test_an_extended_search_raises_what_waits_as_well(sampling):
    search = until_ordered(sampling(budget={"trials": 5}))
    from core.jobs import Budget

    search.change(lambda s: jobs.extend(s, search.job_id, Budget(trials=9)))
    assert search.go().state is JobState.SUCCEEDED
    assert len(search.candidates) == 9
    assert drawn(search)


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("tpe", "cmaes", "sobol", "greedy-soup", "random")]


@pytest.mark.parametrize("strategy", ["gp", *SLOW])
def test_proposals_are_the_same_from_the_stored_history_whoever_makes_them(sampling, strategy):
    """A control worker that is replaced at every look proposes what one does that is never replaced."""
    wanted = {"strategy": {"name": strategy}, "budget": {"trials": 14}}
    whole = sampling(**wanted)
    whole.go()
    broken = sampling(**wanted)
    for _ in range(300):
        broken.look()
        proposers.forget(broken.job_id)
        broken.process.database.dispose()
        broken.process = Process(broken.settings)
        if not broken.work():
            break
    assert broken.job.state is whole.job.state is JobState.SUCCEEDED
    assert [trial.values for trial in broken.candidates] == [trial.values for trial in whole.candidates]
    assert drawn(whole)


def test_a_lost_study_is_rebuilt_with_what_opened_under_way(sampling):
    search = sampling()
    search.go()
    again = Proposer(search_space(search), "random", study_name="again", seed=0)
    again.recover(search.trials)
    assert again.told(range(12)) == dict.fromkeys(range(12), "complete") | {
        trial.optuna_number: "pruned" for trial in search.candidates if trial.state is TrialState.STOPPED
    }


def search_space(search):
    with search.database.reading() as session:
        return search.job.request.search_space(4, generators.opening(session, search.job))


def test_its_generator_stays_while_the_search_is_under_way(sampling):
    from core.errors import ConflictError

    search = sampling(budget={"trials": 30})
    until_ordered(search)
    assert search.work()
    with search.database.reading() as session:
        (kept,) = artifacts.of_job(session, search.job_id)
        with pytest.raises(ConflictError, match="uses"):
            generators.check_unused(session, kept)
