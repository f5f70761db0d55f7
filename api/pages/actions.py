"""What a page lets one ask of a job."""

from __future__ import annotations

from core.states import JobState


def actions(state: JobState) -> list[str]:
    """What can be asked of a job now."""
    first = {JobState.RUNNING: ["pause"], JobState.PAUSED: ["resume"]}.get(state, [])
    return first if state.final else [*first, "cancel"]
