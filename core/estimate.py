"""What a search will cost, before it is posted: items, builds, time, memory, each with a range and what it rests on.

Three courses are reckoned: a cheap one (few promotions, fast device), the likely one and a dear one; every range is
what they span.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from core.costs import Costs, Input, Memory, Pace, Range, TaskSize, costs_of, memory_of
from core.jobs import SearchJob
from core.model import Header
from core.noun import Noun
from core.rungs import items_of, rung_sizes

#: More candidates than this are not reckoned with.
_MOST = 5_000


class RungEstimate(Noun):
    """What a rung costs.

    Attributes:
        items_per_task, items: per task, and over all tasks, of one candidate that has passed it.
        candidates: how many reach it.
    """

    items_per_task: int
    items: int
    candidates: Range


class Estimate(Noun):
    """What a job will cost.

    Attributes:
        candidates: proposed until a limit is reached.
        ends_by: the limit that is reached first in the likely course.
        rungs: of the race.
        item_evaluations: scored in the search, parents included.
        heldout_items: scored in the confirmation, at most.
        builds: candidates written into a worker's memory.
        device_seconds, seconds: of all devices, and of wall time with `workers` of them; None where a parent's size
            is not known.
        memory: of one worker; None likewise.
        memory_bytes: its sum.
        device, workers: what they are reckoned for.
        observed: steps of earlier jobs that the pace rests on; 0 takes a table.
        inputs: every number that went in.
        assumptions: what is taken for granted.
    """

    candidates: Range
    ends_by: str
    rungs: tuple[RungEstimate, ...]
    item_evaluations: Range
    heldout_items: int
    builds: Range
    device_seconds: Range | None
    seconds: Range | None
    memory: Memory | None
    memory_bytes: int | None
    device: str
    workers: int
    observed: int
    inputs: tuple[Input, ...]
    assumptions: tuple[str, ...]


class _Course(NamedTuple):
    """One course: how many candidates reach each rung, and what comes of it."""

    reached: tuple[float, ...]
    items: float
    builds: float
    device_seconds: float | None
    seconds: float | None
    ends_by: str


def estimate(
    job: SearchJob,
    headers: Mapping[str, Header],
    tasks: Sequence[TaskSize],
    *,
    device: str = "cpu",
    paces: Sequence[Pace] = (),
    workers: int | None = None,
    reuse_bytes: int = 0,
) -> Estimate:
    """What a job will cost.

    Args:
        job: the job.
        headers: of its models, by the names that it uses; without some of them times and memory are not told.
        tasks: of its objective, in order.
        device: the name of the devices that will score.
        paces: what earlier jobs took on such devices.
        workers: how many devices work for it; `parallel` at most, and by default.
        reuse_bytes: memory that a worker keeps for hidden states.
    """
    hands = max(1, min(workers or job.parallel, job.parallel))
    sizes = [task.search_items for task in tasks]
    rungs = rung_sizes(job.racing, sizes)
    known = all(model.name in headers for model in job.models)
    costs, inputs = costs_of(job, headers, tasks, device, paces) if known else (None, [])
    courses = [
        _run(job, rungs, sizes, costs[course] if costs else None, hands, share)
        for course, share in enumerate((1.0, 1.3, 2.0))
    ]
    memory = memory_of(job, headers, device, reuse_bytes) if known else None
    finalists = job.racing.finalists + len(job.models)
    return Estimate(
        candidates=_span(course.reached[0] for course in courses),
        ends_by=courses[1].ends_by,
        rungs=tuple(
            RungEstimate(
                items_per_task=size,
                items=items_of(size, sizes),
                candidates=_span(course.reached[rung] for course in courses),
            )
            for rung, size in enumerate(rungs)
        ),
        item_evaluations=_span(course.items for course in courses),
        heldout_items=finalists * sum(task.heldout_items for task in tasks),
        builds=_span(course.builds for course in courses),
        device_seconds=_span(course.device_seconds or 0.0 for course in courses) if costs else None,
        seconds=_span(course.seconds or 0.0 for course in courses) if costs else None,
        memory=memory,
        memory_bytes=memory.total if memory else None,
        device=device,
        workers=hands,
        observed=len([pace for pace in paces if pace.device == device]),
        inputs=(*_given(job, headers, tasks), *inputs),
        assumptions=_assumptions(job, tasks, known),
    )


# -- the race ------------------------------------------------------------------------------------------------------


def reaching(candidates: int, rungs: int, rivals: int, eta: int, share: float = 1.0) -> tuple[float, ...]:
    """How many of the candidates reach each rung, on average, when none is better than those before it.

    The k-th candidate at a rung meets k - 1 others and the parents; it goes on while fewer than eta were seen, and
    else if it is among the best `seen // eta`, which by symmetry has that share of probability.

    Args:
        candidates: that are begun.
        rungs: how many there are.
        rivals: parents, which pass every rung.
        eta: of the race.
        share: how much likelier than by symmetry a promotion is (a search that improves promotes more).
    """
    found = [float(candidates)]
    for _ in range(rungs - 1):
        whole = math.ceil(found[-1])
        passed = 0.0
        for k in range(1, whole + 1):
            seen = k + rivals
            weight = min(1.0, found[-1] - (k - 1))
            passed += weight * (1.0 if seen < eta else min(1.0, share * (seen // eta) / seen))
        found.append(passed)
    return tuple(found)


def _run(
    job: SearchJob, rungs: Sequence[int], sizes: Sequence[int], costs: Costs | None, hands: int, share: float
) -> _Course:
    """A course with as many candidates as its limits allow."""
    limits = {name: value for name, value in job.budget.amounts.items() if value is not None and name != "trials"}

    def course(candidates: int) -> _Course:
        return _course(job, rungs, sizes, costs, hands, share, candidates)

    def over(candidates: int) -> str | None:
        found = course(candidates)
        used = {
            "item_evaluations": found.items,
            "device_seconds": found.device_seconds,
            "seconds": found.seconds,
        }
        return next((name for name, limit in limits.items() if (used[name] or 0.0) >= limit), None)

    low, high = 1, min(job.budget.trials or _MOST, _MOST)
    ends_by = over(high)
    if ends_by is None:
        return course(high)._replace(ends_by="trials" if job.budget.trials is not None else "nothing that is reckoned")
    while low < high:
        middle = (low + high) // 2
        if (name := over(middle)) is not None:
            high, ends_by = middle, name
        else:
            low = middle + 1
    return course(high)._replace(ends_by=ends_by)


def _course(
    job: SearchJob,
    rungs: Sequence[int],
    sizes: Sequence[int],
    costs: Costs | None,
    hands: int,
    share: float,
    candidates: int,
) -> _Course:
    parents = len(job.models)
    reached = reaching(candidates, len(rungs), parents, job.racing.eta, share)
    steps = [items_of(size, sizes) for size in rungs]
    fresh = [steps[0], *(after - before for before, after in itertools.pairwise(steps))]
    items = parents * steps[-1] + math.fsum(count * more for count, more in zip(reached, fresh, strict=True))
    # A promotion is built again unless its weights are still in place: never in the cheap course, always in the dear.
    again = {1.0: 0.0, 1.3: 0.5}.get(share, 1.0)
    builds = parents + candidates + again * math.fsum(reached[1:])
    device = wall = None
    if costs is not None:
        family = job.sampled
        trained = family is not None and family.own is not None and candidates > family.own.train_after
        work = items * costs.item + builds * costs.build + (costs.training if trained else 0.0)
        device = work
        wall = costs.start + max(work / hands, steps[-1] * costs.item)
    return _Course(reached, items, builds, device, wall, "")


# -- telling -------------------------------------------------------------------------------------------------------


def _given(job: SearchJob, headers: Mapping[str, Header], tasks: Sequence[TaskSize]) -> list[Input]:
    found = [
        Input(name=f"parameters.{name}", value=header.parameters, unit="weights", source="the checkpoint's header")
        for name, header in headers.items()
    ]
    for task in tasks:
        source = "read by a worker" if task.known else "published sizes, or a guess: no worker has read the task yet"
        found.append(Input(name=f"search_items.{task.task}", value=task.search_items, unit="items", source=source))
        found.append(
            Input(name=f"tokens.{task.task}", value=round(task.tokens.likely, 1), unit="tokens", source=source)
        )
    return [*found, Input(name="eta", value=job.racing.eta, source="the job")]


def _assumptions(job: SearchJob, tasks: Sequence[TaskSize], known: bool) -> tuple[str, ...]:
    said = [
        f"a promotion is 1 (cheap), 1.3 (likely) or 2 (dear) times as likely as 1 in {job.racing.eta}",
        "rungs are those of the job; where building is dear beside scoring the first ones may be left out",
        "no outcome is reused from earlier jobs; what is reused costs nothing",
        "gradient refinement, where the strategy uses it, is not reckoned",
    ]
    if job.sampled is not None:
        said.append(
            "the search's own generator is trained once, if the limits let the search come to it; its memory is "
            "not reckoned"
        )
    if job.confirmation.also:
        said.append("what only the confirmation reads is not reckoned")
    if job.budget.expected_improvement is not None:
        said.append("the search does not end early for lack of expected improvement")
    if any(not task.known for task in tasks):
        said.append("tasks that no worker has read have published sizes, or 500 items on each side")
    if not known:
        said.append("times and memory need the size of every parent: register those that are not on this machine")
    return tuple(said)


def _span(values: Iterable[float]) -> Range:
    """Three courses as a range: the middle one is the likely one, the ends are the least and the most of all."""
    first, likely, last = values
    return Range(min(first, likely, last), likely, max(first, likely, last))
