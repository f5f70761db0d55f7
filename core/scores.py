"""Scores from outcomes."""

from __future__ import annotations

from collections.abc import Sequence

from core.objective import TaskSpec
from core.outcomes import Outcomes
from core.records import Score
from core.statistics import mean, stderr


def score_of(spec: TaskSpec, results: Outcomes) -> Score:
    """The mean of correctness with its standard error."""
    return Score(
        task=spec.task,
        metric=spec.metric_name,
        value=mean(results.correct),
        stderr=stderr(results.correct),
        n=len(results),
    )


def macro_of(scores: Sequence[Score], shares: Sequence[float]) -> float:
    """The weighted mean over tasks."""
    return sum(share * score.value for share, score in zip(shares, scores, strict=True))
