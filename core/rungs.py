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


def adapted(rungs: Sequence[int], search_items: Sequence[int], kappa: float) -> tuple[int, ...]:
    """The rungs, the first of them raised until it takes at least a third of a build: less is cheap beside building.

    Args:
        rungs: items per task, rising.
        search_items: number of search items of each task.
        kappa: what building a candidate costs, in items.

    Returns:
        The rungs that are large enough; before them one of just that size, unless the first of them is near it. The
        last always stays.
    """
    least = next((size for size in range(1, rungs[-1]) if 3 * items_of(size, search_items) >= kappa), rungs[-1])
    left = [size for size in rungs if size >= least]
    between = least > rungs[0] and left[0] > NEAR * least
    return (least, *left) if between else tuple(left)


#: Two rungs nearer than this are as good as one.
NEAR = 1.5


def items_of(rung: int, search_items: Sequence[int]) -> int:
    """Items over all tasks at a rung of so many per task."""
    return sum(min(rung, items) for items in search_items)
