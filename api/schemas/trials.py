"""Trials on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field

from api.schemas.failures import FailureOut
from core.params import Scalar
from core.recipe.resolved import ResolvedRecipe
from core.recipe.short import Recipe
from core.records import Score, TrialRecord, TrialSummary

OPTIMISTIC = "the search chose by these items, so its scores on them are optimistic"


class ScoreOut(BaseModel):
    """A task's score: the mean of correctness over `n` items, and its standard error."""

    task: str
    metric: str
    value: float
    stderr: float
    n: int

    @classmethod
    def all_of(cls, scores: tuple[Score, ...]) -> tuple[Self, ...]:
        """Every task's score."""
        return tuple(cls(**dict(score)) for score in scores)


class TrialOut(BaseModel):
    """A candidate of a job, or one of its parents scored as it is (`origin` = `parent`)."""

    id: str
    job_id: str
    number: int
    origin: str
    label: str
    state: str
    family: str
    method: str
    rung: int
    target_items: int = Field(description="Items per task it may be scored on so far.")
    scored_items: int = Field(description="Items per task it has been scored on.")
    scores: tuple[ScoreOut, ...] = Field(description=f"Per task, on search items: {OPTIMISTIC}.")
    macro: float | None = Field(description=f"Weighted mean of `scores`: {OPTIMISTIC}.")
    heldout: tuple[ScoreOut, ...] = Field(description="Per task, on items the search never saw.")
    macro_heldout: float | None
    seconds: float = Field(description="Device seconds spent on building and scoring.")
    failure: FailureOut | None
    created_at: datetime
    finished_at: datetime | None

    @classmethod
    def of(cls, trial: TrialSummary) -> Self:
        """The summary on the wire."""
        shown = trial.model_dump(exclude={"scores", "heldout", "failure", "state"})
        return cls(
            **shown,
            state=trial.state.value,
            scores=ScoreOut.all_of(trial.scores),
            heldout=ScoreOut.all_of(trial.heldout),
            failure=FailureOut.of(trial.failure),
        )


class HeardOut(BaseModel):
    """A score as the sampler hears it: against the study's reference, item by item, from smoothed margins."""

    items: int = Field(description="Per task.")
    score: float = Field(description="A share; close to accuracy, but smoothed.")
    sd: float = Field(description="By the items it rests on.")


class TrialDetail(TrialOut):
    """A trial with everything that decides its bytes and everything known of how it was scored."""

    values: dict[str, Scalar] | None
    recipe: Recipe = Field(description="The short form, with the job's names.")
    resolved: ResolvedRecipe = Field(description="The complete form: one value for every tensor.")
    recipe_digest: str
    weights_digest: str | None
    heard: tuple[HeardOut, ...] = Field(description="What it was raced by, rung by rung, and told by in the end.")
    provenance: dict[str, Any]
    artifacts: tuple[str, ...] = Field(description="Checkpoints exported from it.")

    @classmethod
    def of_record(cls, trial: TrialRecord, artifacts: tuple[str, ...]) -> Self:
        """The record on the wire."""
        return cls(
            **dict(TrialOut.of(summary_of(trial))),
            values=trial.values,
            recipe=trial.recipe,
            resolved=trial.resolved,
            recipe_digest=trial.recipe_digest,
            weights_digest=trial.weights_digest,
            heard=tuple(HeardOut(items=h.items, score=h.score, sd=h.variance**0.5) for h in trial.heard),
            provenance=trial.provenance,
            artifacts=artifacts,
        )


class ExportIn(BaseModel):
    """How a trial's checkpoint is to be saved; its dtype is the recipe's, as that is what was scored."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"max_shard_bytes": 5368709120}]})

    max_shard_bytes: Annotated[int, Field(ge=1024)] = 5 * 2**30


def family_of(recipe: Recipe) -> tuple[str, str]:
    """Family and method of a recipe, as trial summaries have them."""
    if recipe.generation is not None:
        return "generation", recipe.generation.arm
    if recipe.merge is not None:
        return "merge", recipe.merge.method
    if recipe.layout is not None:
        return "layout", recipe.layout.preset
    return "slices", "slices"


def summary_of(trial: TrialRecord) -> TrialSummary:
    """A trial without its recipe."""
    family, method = family_of(trial.recipe)
    shared = {name: getattr(trial, name) for name in TrialSummary.model_fields if hasattr(trial, name)}
    return TrialSummary.model_validate({**shared, "family": family, "method": method})
