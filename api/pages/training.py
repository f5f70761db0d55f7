"""The page of a job that trains a generator: how far it is, its losses, and what was measured of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from api import svg
from api.pages.actions import actions
from api.schemas.failures import FailureOut
from api.schemas.jobs import GeneratorOut
from api.training import training_detail
from core.records import JobRecord
from core.settings import Settings
from store import artifacts
from store.session import ReadSession


def content(s: ReadSession, settings: Settings, job: JobRecord) -> dict[str, Any]:
    """What the templates show of it."""
    detail, kept = training_detail(s, job), artifacts.of_job(s, job.id)
    told = detail.training
    assert told is not None
    assert job.training is not None
    return {
        "live": "training_live.html",
        "job": job,
        "detail": detail,
        "state": "".join(noun.model_dump_json() for noun in (job, told, *kept)),
        "failure": FailureOut.of(job.failure),
        "told": told,
        "settings": job.training.settings.model_dump(),
        "curve": svg.curve(
            [(float(done), loss) for done, loss in told.losses],
            (),
            end=float(told.steps),
            unit="steps",
            stepped=False,
            shares=False,
        ),
        "metrics": list(_lines(told.metrics or {})),
        "artifacts": kept,
        "actions": actions(job.state),
        "final": job.state.final,
        "poll_seconds": settings.poll_seconds,
    }


def _lines(metrics: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every number of the metrics under its dotted name."""
    for name, value in sorted(metrics.items()):
        if isinstance(value, Mapping):
            yield from _lines(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", f"{value:.4g}" if isinstance(value, float) else str(value)


def own(told: GeneratorOut | None) -> dict[str, Any] | None:
    """What the page of a search shows of the generator that it trains itself."""
    if told is None:
        return None
    losses = [(float(done), loss) for done, loss in told.training.losses]
    curve = svg.curve(losses, (), end=float(told.training.steps), unit="steps", stepped=False) if losses else None
    return {"told": told, "curve": curve, "metrics": list(_lines(told.training.metrics or {}))}
