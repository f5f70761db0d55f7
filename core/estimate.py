"""What a search will cost, before it is posted: items, builds, time, memory, each with a range and what it rests on.

Three courses are reckoned: a cheap one (few promotions, fast device), the likely one and a dear one; every range is
what they span.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from core.catalog import catalog
from core.costs import Costs, Input, Memory, Pace, Range, TaskSize, costs_of, memory_of
from core.jobs import SearchJob
from core.model import Header
from core.noun import Noun
from core.rungs import adapted, items_of, rung_sizes
from core.walks import Walks, walks_of

#: More candidates than this are not reckoned with.
_MOST = 5_000
#: Position of the dear course.
_DEAR = 2


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
        refined_items: of these, by gradient refinement; forward and backward over an item count as three.
        reused_items: of these, what is stored already of parents and of the first uniform merge: it costs nothing.
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
    refined_items: Range
    reused_items: int
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


class Race(NamedTuple):
    """What a course goes by.

    Attributes:
        job: the job.
        rungs: items per task, rising.
        sizes: search items of each task.
        hands: devices at once.
        share: how much likelier than by symmetry a promotion is.
        walks: gradient refinements.
        reused: outcomes that need not be scored.
    """

    job: SearchJob
    rungs: Sequence[int]
    sizes: Sequence[int]
    hands: int
    share: float
    walks: Walks
    reused: int


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
    reused: int = 0,
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
        reused: outcomes on search items that earlier jobs have left of the parents and of the first uniform merge.
    """
    hands = max(1, min(workers or job.parallel, job.parallel))
    sizes = [task.search_items for task in tasks]
    known = all(model.name in headers for model in job.models)
    costs, inputs = costs_of(job, headers, tasks, device, paces) if known else (None, [])
    kappa = costs[1].build / costs[1].item if costs else None
    rungs, walks = rungs_of(job, sizes, kappa), walks_of(job)
    courses = [
        _run(
            Race(job, rungs, sizes, hands, share, walks[course], 0 if course == _DEAR else reused),
            costs[course] if costs else None,
        )
        for course, share in enumerate((1.0, 1.3, 2.0))
    ]
    memory = memory_of(job, headers, device, reuse_bytes) if known else None
    finalists = job.racing.finalists + len(job.models)
    return Estimate(
        candidates=_span(course.reached[0] for course in courses),
        ends_by=courses[1].ends_by,
        rungs=_reached(rungs, sizes, courses),
        item_evaluations=_span(course.items for course in courses),
        refined_items=Range(*(walk.items for walk in walks)),
        reused_items=reused,
        heldout_items=finalists * sum(task.heldout_items for task in tasks),
        builds=_span(course.builds for course in courses),
        device_seconds=_span(course.device_seconds or 0.0 for course in courses) if costs else None,
        seconds=_span(course.seconds or 0.0 for course in courses) if costs else None,
        memory=memory,
        memory_bytes=memory.total if memory else None,
        device=device,
        workers=hands,
        observed=len([pace for pace in paces if pace.device == device]),
        inputs=(*_given(job, headers, tasks), *inputs, *_reckoned(kappa, walks)),
        assumptions=_assumptions(job, tasks, known, reused),
    )


def _reached(rungs: Sequence[int], sizes: Sequence[int], courses: Sequence[_Course]) -> tuple[RungEstimate, ...]:
    """What every rung reads, and how many candidates come that far."""
    return tuple(
        RungEstimate(
            items_per_task=size,
            items=items_of(size, sizes),
            candidates=_span(course.reached[rung] for course in courses),
        )
        for rung, size in enumerate(rungs)
    )


# -- the race ------------------------------------------------------------------------------------------------------


def reaching(candidates: int, rungs: int, rivals: int, eta: int, share: float = 1.0) -> tuple[float, ...]:
    """How many of the candidates reach each rung, on average, when none is better than those before it.

    The k-th candidate at a rung meets k - 1 others and the parents; it goes on while fewer than eta were seen, and
    else if it is among the best `seen // eta`, which by symmetry has that share of probability.

    Args:
        candidates: that are begun.
        rungs: how many there are.
        rivals: parents, as if none of them were told apart on the way.
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


def rungs_of(job: SearchJob, sizes: Sequence[int], kappa: float | None) -> tuple[int, ...]:
    """The rungs that the job will race on: one where its strategy does not race, fewer where a build is dear.

    Args:
        job: the job.
        sizes: search items of each task.
        kappa: what a build costs, in items; None where that is not known.
    """
    rungs = rung_sizes(job.racing, sizes)
    if job.strategy.name != "auto" and not catalog().strategy(job.strategy.name).races:
        return rungs[-1:]
    return rungs if kappa is None or job.racing.rungs is not None else adapted(rungs, sizes, kappa)


def _run(race: Race, costs: Costs | None) -> _Course:
    """A course with as many candidates as its limits allow."""
    job = race.job
    limits = {name: value for name, value in job.budget.amounts.items() if value is not None and name != "trials"}

    def course(candidates: int) -> _Course:
        return _course(race, costs, candidates)

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


def _course(race: Race, costs: Costs | None, candidates: int) -> _Course:
    parents = len(race.job.models)
    reached = reaching(candidates, len(race.rungs), parents, race.job.racing.eta, race.share)
    steps = [items_of(size, race.sizes) for size in race.rungs]
    fresh = [steps[0], *(after - before for before, after in itertools.pairwise(steps))]
    scored = of_parents(parents, steps, race.share) + math.fsum(
        count * more for count, more in zip(reached, fresh, strict=True)
    )
    items = max(0.0, scored - race.reused) + race.walks.items
    # A promotion is built again unless its weights are still in place: never in the cheap course, always in the dear.
    again = {1.0: 0.0, 1.3: 0.5}.get(race.share, 1.0)
    builds = parents + candidates + race.walks.number + again * math.fsum(reached[1:])
    device = wall = None
    if costs is not None:
        family = race.job.sampled
        trained = family is not None and family.own is not None and candidates > family.own.train_after
        work = items * costs.item + builds * costs.build + (costs.training if trained else 0.0)
        device = work
        wall = costs.start + max(work / race.hands, steps[-1] * costs.item)
    return _Course(reached, items, builds, device, wall, "")


def of_parents(parents: int, steps: Sequence[int], share: float) -> int:
    """Items of the parents' race: in the cheap course the best one is told apart on the first rung, in the likely one
    two are left after the second, in the dear one nobody is told apart.

    Args:
        parents: how many.
        steps: items at each rung.
        share: the course, by how much likelier than by symmetry a promotion is.
    """
    whole = min(parents, {1.0: 1, 1.3: 2}.get(share, parents))
    return whole * steps[-1] + (parents - whole) * steps[0 if share == 1.0 else min(1, len(steps) - 1)]


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


def _reckoned(kappa: float | None, walks: Sequence[Walks]) -> list[Input]:
    """Numbers that were reckoned on the way."""
    found = [
        Input(
            name="refinements", value=walks[1].number, source="the job's rules and its methods with smooth parameters"
        )
    ]
    if kappa is not None:
        source = "seconds_per_build / seconds_per_item; the first rung is raised to a third of it"
        found.append(Input(name="build_cost", value=round(kappa, 1), unit="items", source=source))
    return found


def _assumptions(job: SearchJob, tasks: Sequence[TaskSize], known: bool, reused: int) -> tuple[str, ...]:
    said = [
        f"a promotion is 1 (cheap), 1.3 (likely) or 2 (dear) times as likely as 1 in {job.racing.eta}",
        "of the parents one (cheap), two (likely) or all (dear) are scored in full",
        f"{reused} outcomes of parents and the first uniform merge are reused, none in the dear course; others share "
        "none with earlier jobs",
        "a gradient refinement ends after three tenths (cheap), nine tenths (likely) or all (dear) of its items",
    ]
    if job.sampled is not None:
        said.append(
            "the search's own generator is trained once, if the limits let the search come to it; what a step of it "
            "keeps for its way back is not in the memory"
        )
    if job.confirmation.also:
        said.append("what only the confirmation reads is not reckoned")
    if job.racing.rungs is None and not known:
        said.append("rungs are the usual ones; where building is dear beside scoring the first is raised")
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
