import pytest

from core.states import JOB_MOVES, STEP_MOVES, TRIAL_MOVES, JobState, StepState, TrialState, sources_of


@pytest.mark.parametrize(
    ("moves", "states"), [(JOB_MOVES, JobState), (TRIAL_MOVES, TrialState), (STEP_MOVES, StepState)]
)
def test_every_state_can_be_reached_and_left_unless_final(moves, states):
    assert set(moves) == set(states)
    first = next(iter(states))
    reached, frontier = {first}, [first]
    while frontier:
        new = moves[frontier.pop()] - reached
        reached |= new
        frontier += new
    assert reached == set(states)
    for state in states:
        assert state.final == (not moves[state])
        assert state not in moves[state]


def test_the_guard_of_a_move_is_the_inverse_of_the_table():
    for moves, states in ((JOB_MOVES, JobState), (TRIAL_MOVES, TrialState), (STEP_MOVES, StepState)):
        for target in states:
            assert sources_of(target) == tuple(sorted(str(s) for s in states if target in moves[s]))


def test_any_state_that_is_not_final_can_fail_and_be_cancelled():
    for moves, failed, cancelled in (
        (JOB_MOVES, JobState.FAILED, JobState.CANCELLED),
        (TRIAL_MOVES, TrialState.FAILED, TrialState.CANCELLED),
        (STEP_MOVES, StepState.FAILED, StepState.CANCELLED),
    ):
        for state, nexts in moves.items():
            assert not nexts or {failed, cancelled} <= nexts, state
