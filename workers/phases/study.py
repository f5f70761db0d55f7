"""What one look needs to know of a running search."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from core.catalog import StrategyInfo
from core.jobs import Opening, SearchJob
from core.model import Model
from core.records import Device, JobRecord, StepKind
from core.rungs import rung_sizes
from core.space import SearchSpace
from core.tasks import Side, TaskContent, order
from search.auto import choose
from search.strategies import strategy
from store import events, generators, steps, tasks
from store.session import ReadSession
from workers.parents import job_models

#: Event: the strategy in force and why.
STRATEGY = "strategy"
#: Event: items per task at every rung, once they are settled.
RUNGS = "rungs"


@dataclass(frozen=True)
class Search:
    """A job under way.

    Attributes:
        models: its parents.
        space: what candidates may be.
        strategy: the strategy in force.
        orders: per task of the objective its search items in the study's one order.
        rungs: items per task at every rung.
        settled: whether the rungs will stay as they are.
        device: the kind of device that scores for it.
        opening: what the search has got of its own generator of weights, if it trains one.
    """

    job: JobRecord
    models: dict[str, Model]
    space: SearchSpace
    strategy: StrategyInfo
    orders: tuple[tuple[int, ...], ...]
    rungs: tuple[int, ...]
    settled: bool
    device: Device
    opening: Opening | None = None

    @classmethod
    def of(cls, session: ReadSession, job: JobRecord) -> Search:
        """Read it from the store."""
        known, request = job_models(session, job), job.request
        opening = generators.opening(session, job)
        space = request.search_space(min(model.header.layers for model in known.values()), opening)
        info = strategy(in_force(session, job, space)[0]).info
        orders = orders_of(session, job, "search")
        noted = events.of_kind(session, job.id, RUNGS)
        rungs = rung_sizes(request.racing, [len(items) for items in orders])
        if noted:
            rungs = tuple(noted[-1].payload["rungs"])
        elif not info.races:
            rungs = rungs[-1:]
        settled = bool(noted) or not info.races
        return cls(job, known, space, info, orders, rungs, settled, job_device(session, job), opening)

    @property
    def whole(self) -> int:
        """Items per task of the last rung."""
        return self.rungs[-1]

    @property
    def waits(self) -> bool:
        """Whether nothing can be proposed yet, as all candidates will come from a generator that is still to be."""
        request = self.job.request
        return request.sampled is not None and self.opening is None and len(request.space.families) == 1

    def with_rungs(self, rungs: tuple[int, ...]) -> Search:
        """With the rungs that will stay."""
        return replace(self, rungs=rungs, settled=True)


def strategy_of(request: SearchJob, space: SearchSpace) -> tuple[str, str]:
    """The strategy that a job asks for, and why."""
    if request.strategy.name != "auto":
        return request.strategy.name, "asked for"
    return choose(space, request.parallel, request.budget)


def in_force(session: ReadSession, job: JobRecord, space: SearchSpace) -> tuple[str, str]:
    """The strategy of a job and why: what `auto` chose once stays, whatever becomes of the budget or of `auto`.

    It is chosen for all that the space will ever be.
    """
    noted = events.of_kind(session, job.id, STRATEGY)
    if not noted:
        return strategy_of(job.request, job.request.whole_space(space.depth))
    return str(noted[0].payload["name"]), str(noted[0].payload["reason"])


def orders_of(session: ReadSession, job: JobRecord, side: Side) -> tuple[tuple[int, ...], ...]:
    """Per task of a job's objective the items of one side in the study's order."""
    contents = (tasks.get(session, spec.task, job.contents[spec.task]) for spec in job.request.objective.tasks)
    return tuple(_order(job.request.seed, content, side) for content in contents)


@lru_cache(maxsize=256)
def _order(seed: int, content: TaskContent, side: Side) -> tuple[int, ...]:
    return order(seed, content.content_digest, content.side(side))


def job_device(session: ReadSession, job: JobRecord) -> Device:
    """The kind of device that read the job's tasks first; all its candidates are scored on that kind."""
    done = steps.of_job(session, job.id, kinds=(StepKind.INSPECT_TASK,))
    return Device(str((done[0].result or {}).get("device", Device.CPU))) if done else Device.CPU
