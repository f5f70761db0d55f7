"""Records: frozen snapshots of rows, what rooms and doors hand one another. Times are aware, in UTC."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Self

from pydantic import AwareDatetime, ConfigDict, Field

from core.adapters import Adapter, AdapterHeader
from core.errors import ConflictError
from core.jobs import GeneratorJob, Job, SearchJob
from core.model import Header, Model
from core.noun import Noun
from core.params import Scalar
from core.recipe.resolved import ResolvedRecipe
from core.recipe.short import Recipe
from core.states import JobState, StepState, TrialState

#: Origins of trials that no budget of candidates pays for: they were there before the search proposed anything.
FREE = frozenset({"parent", "adopted"})

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def new_id(prefix: str) -> str:
    """A sortable id: prefix, 48 bits of milliseconds and 80 random bits in Crockford base 32 (a ULID)."""
    value = (int(time.time() * 1000) & ((1 << 48) - 1)) << 80 | secrets.randbits(80)
    text = "".join(_ALPHABET[(value >> shift) & 31] for shift in range(125, -5, -5))
    return f"{prefix}_{text}"


class StepKind(StrEnum):
    """Kinds of work."""

    INSPECT_MODEL = "inspect_model"
    INSPECT_TASK = "inspect_task"
    ADVANCE = "advance"
    RUN_TRIAL = "run_trial"
    REFINE = "refine"
    CONFIRM = "confirm"
    EXPORT = "export"
    EVALUATE = "evaluate"
    STATISTICS = "statistics"
    TRAIN_GENERATOR = "train_generator"
    EXPLAIN = "explain"


class Device(StrEnum):
    """What a step needs: `none` runs on a control worker."""

    NONE = "none"
    CPU = "cpu"
    CUDA = "cuda"


class Failure(Noun):
    """Why something failed: an error's stable code, its message and the place it names."""

    code: str
    message: str
    where: str | None = None


class ModelRecord(Noun):
    """A registered model or adapter. `header` and `weights_digest` are None until it was inspected."""

    id: str
    name: str
    ref: str
    state: str  # "registered" | "ready" | "failed"
    weights_digest: str | None = None
    header: Header | AdapterHeader | None = None
    failure: Failure | None = None
    created_at: AwareDatetime

    def as_parent(self, name: str) -> Model | Adapter | None:
        """The model or adapter under the name a job calls it by; None until it was inspected."""
        if self.header is None or self.weights_digest is None:
            return None
        if isinstance(self.header, AdapterHeader):
            return Adapter(name=name, ref=self.ref, weights_digest=self.weights_digest, header=self.header)
        return Model(name=name, ref=self.ref, weights_digest=self.weights_digest, header=self.header)


class Score(Noun):
    """A task's score, derived from outcomes: mean of correctness, its standard error, and how many items."""

    task: str
    metric: str
    value: float
    stderr: float
    n: int


class HeardScore(Noun):
    """What the sampler hears of a trial after so many items per task: enough to tell it again, digit by digit.

    Attributes:
        items: per task.
        score: the macro mean that was told, as a share.
        variance: of `score`, by its items.
        n: outcomes behind it, over all tasks.
        tasks: the same score task by task, in the objective's order.
    """

    items: int
    score: float
    variance: float
    n: int
    tasks: tuple[float, ...] = ()


class TrialRecord(Noun):
    """A candidate of a job.

    Attributes:
        number: 0, 1, ... within the job.
        origin: `parent` (a model as it is), `enqueued` (a known good start), `proposed`, `adopted` (a candidate of
            another job, whose outcomes are known), `refined` (found outside the space by following the gradient), or
            `completed` (a stopped candidate scored in full after a search in which none was).
        label: a name for people (the parent's name, `uniform linear`, ...).
        values: the space's values; None for a parent and for one that the space cannot express.
        recipe_digest: the resolved recipe's digest.
        target_items: items per task it may be scored on so far (a rung).
        scored_items: items per task it has been scored on.
        scores: per task on its search items.
        macro: weighted mean of `scores`; optimistic, as the search chose by it.
        heldout: per task on held-out items, after confirmation.
        heard: the scores that it is raced and told by, one for each rung it has passed, by items.
        told: whether the sampler has heard the result.
        seconds: device seconds spent (build + scoring).
    """

    id: str
    job_id: str
    number: int
    optuna_number: int | None = None
    origin: str
    label: str = ""
    state: TrialState
    values: dict[str, Scalar] | None = None
    recipe: Recipe
    resolved: ResolvedRecipe
    recipe_digest: str
    rung: int = 0
    target_items: int
    scored_items: int = 0
    scores: tuple[Score, ...] = ()
    macro: float | None = None
    heldout: tuple[Score, ...] = ()
    macro_heldout: float | None = None
    weights_digest: str | None = None
    provenance: dict[str, Any] = Field(default_factory=dict)
    failure: Failure | None = None
    heard: tuple[HeardScore, ...] = ()
    told: bool = False
    seconds: float = 0.0
    created_at: AwareDatetime
    finished_at: AwareDatetime | None = None

    @property
    def last_heard(self) -> HeardScore | None:
        """The score over all the items it was scored on; None before it was heard."""
        return next((heard for heard in self.heard if heard.items == self.scored_items), None)


@dataclass(frozen=True, slots=True)
class TrialBrief:
    """A trial without recipe and values: what deciding on a search reads of each of its trials, every time.

    Attributes: as in TrialRecord.
    """

    id: str
    number: int
    optuna_number: int | None
    origin: str
    label: str
    state: TrialState
    recipe_digest: str
    rung: int
    target_items: int
    scored_items: int
    macro: float | None
    heard: tuple[HeardScore, ...]
    told: bool
    seconds: float
    created_at: datetime
    finished_at: datetime | None

    @property
    def score(self) -> float | None:
        """The score over the most items: as the sampler hears it, or its macro before that."""
        return self.heard[-1].score if self.heard else self.macro


class TrialSummary(Noun):
    """A trial without its recipe: what lists and charts need, cheap to read by the thousand.

    Attributes:
        family: `merge`, `layout` or `slices`.
        method: the merge method, the layout preset, or `slices`.
        (the others): as in TrialRecord.
    """

    id: str
    job_id: str
    number: int
    origin: str
    label: str = ""
    state: TrialState
    family: str
    method: str
    rung: int = 0
    target_items: int
    scored_items: int = 0
    scores: tuple[Score, ...] = ()
    macro: float | None = None
    heldout: tuple[Score, ...] = ()
    macro_heldout: float | None = None
    seconds: float = 0.0
    failure: Failure | None = None
    created_at: AwareDatetime
    finished_at: AwareDatetime | None = None


class JobTally(Noun):
    """A job's candidates (parents not counted) in a few numbers.

    Attributes:
        states: how many candidates are in each state.
        best: the highest macro among the candidates scored on most items; None before the first score.
        parent: the highest macro among the parents.
    """

    job_id: str
    states: dict[str, int] = Field(default_factory=dict)
    best: float | None = None
    parent: float | None = None


class JobRecord(Noun):
    """A job.

    Attributes:
        posted: what was asked for, whatever its kind; `request` in the store.
        verdict: the confirmation's result.
        contents: content digest of every task, by task name, once inspected.
        fingerprints: scoring fingerprint of every task, fixed by the first runner that scored for the job.
        heldout_reads: candidates of this job scored on held-out items.
        items_scored: items scored in the search so far (reused outcomes not counted).
    """

    model_config = ConfigDict(populate_by_name=True)

    id: str
    kind: str
    name: str
    state: JobState
    posted: Job = Field(alias="request")
    verdict: dict[str, Any] | None = None
    failure: Failure | None = None
    contents: dict[str, str] = Field(default_factory=dict)
    fingerprints: dict[str, str] = Field(default_factory=dict)
    heldout_reads: int = 0
    items_scored: int = 0
    created_at: AwareDatetime
    started_at: AwareDatetime | None = None
    finished_at: AwareDatetime | None = None
    paused_at: AwareDatetime | None = None
    paused_seconds: float = 0.0

    def evolve(self, **changes: Any) -> Self:
        """A validated copy with some fields changed; what was asked for goes by either name."""
        if "request" in changes:
            changes["posted"] = changes.pop("request")
        return super().evolve(**changes)

    @property
    def request(self) -> SearchJob:
        """The search that was asked for.

        Raises:
            ConflictError: a job of another kind, which has no candidates.
        """
        if not isinstance(self.posted, SearchJob):
            raise ConflictError(f"only a search has candidates, but {self.id!r} is a {self.kind} job", where="kind")
        return self.posted

    @property
    def documents(self) -> dict[str, str]:
        """Content digests of the tasks that its candidates are scored on, by task name."""
        names = {spec.task for spec in self.request.objective.tasks}
        return {task: content for task, content in self.contents.items() if task in names}

    @property
    def beyond(self) -> Self:
        """The same job over the tasks that only its confirmation reads.

        Raises:
            ConflictError: it has none.
        """
        request = self.request.beyond
        if request is None:
            raise ConflictError(f"{self.id!r} reads no task beyond its objective: name some in `confirmation.also`")
        return self.evolve(request=request)

    @property
    def training(self) -> GeneratorJob | None:
        """The training that was asked for; None in jobs of other kinds."""
        return self.posted if isinstance(self.posted, GeneratorJob) else None

    def running_seconds(self, now: datetime) -> float:
        """Seconds since the job began to run, pauses not counted."""
        if self.started_at is None:
            return 0.0
        end = self.finished_at or self.paused_at or now
        return max(0.0, (end - self.started_at).total_seconds() - self.paused_seconds)


class StepRecord(Noun):
    """A leased unit of work; `fence` rises with every claim and guards every later write."""

    id: str
    job_id: str | None
    trial_id: str | None
    kind: StepKind
    device: Device
    payload: dict[str, Any] = Field(default_factory=dict)
    priority: int = 0
    state: StepState
    owner: str | None = None
    fence: int = 0
    lease_until: AwareDatetime | None = None
    attempts: int = 0
    infra_restarts: int = 0
    not_before: AwareDatetime | None = None
    result: dict[str, Any] | None = None
    failure: Failure | None = None
    created_at: AwareDatetime
    finished_at: AwareDatetime | None = None


class ArtifactRecord(Noun):
    """Kept files: a folder under the artifact root with a manifest of hashes written last."""

    id: str
    job_id: str | None
    trial_id: str | None
    kind: str  # "checkpoint" | "explain"
    path: str
    weights_digest: str | None = None
    files: tuple[dict[str, Any], ...] = ()
    bytes: int = 0
    created_at: AwareDatetime


class EventRecord(Noun):
    """Something that happened to a job; ids rise."""

    id: int
    job_id: str
    kind: str
    payload: dict[str, Any]
    created_at: AwareDatetime


def utc(moment: datetime) -> str:
    """RFC 3339 with a Z."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
