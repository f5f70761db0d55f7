"""The rungs of a race: how many items per task a candidate is scored on before it is judged."""

from __future__ import annotations

from collections.abc import Sequence

from core.jobs import Racing

#: Items per task of the rungs where a job names none; the last rung, all search items, is added to them.
DEFAULT_RUNGS = (50, 200, 1000)


def rung_sizes(racing: Racing, search_items: Sequence[int]) -> tuple[int, ...]:
    """Items per task at every rung, strictly rising; the last is all search items of the largest task.

    Args:
        racing: the job's rules.
        search_items: number of search items of each task. A task with fewer than a rung gives all it has.

    Raises:
        ValueError: no task has a search item.
    """
    most = max(search_items, default=0)
    if most < 1:
        raise ValueError("a race needs search items, but every task has none on its search side")
    wanted = DEFAULT_RUNGS if racing.rungs is None else racing.rungs
    return tuple(sorted({*(min(size, most) for size in wanted), most}))
