"""Claiming a step and running its verb; failures become data."""

from __future__ import annotations

import logging
import time
from typing import Any

import torch

from core.errors import OutOfMemoryError
from core.records import StepKind, StepRecord
from store import steps, trials
from workers.failures import settle
from workers.heart import Heart
from workers.runner import confirm, export, inspect_task, refine, run_trial, train_generator
from workers.runner.bench import Bench

log = logging.getLogger(__name__)

VERBS = {
    StepKind.INSPECT_TASK: inspect_task.run,
    StepKind.RUN_TRIAL: run_trial.run,
    StepKind.REFINE: refine.run,
    StepKind.CONFIRM: confirm.run,
    StepKind.EXPORT: export.run,
    StepKind.TRAIN_GENERATOR: train_generator.run,
}

#: How long a runner waits for the word on the candidate it holds before it takes other work.
WAIT_SECONDS = 1.0


def claim_next(bench: Bench) -> StepRecord | None:
    """The best step there is for this runner, now its own; None where there is none."""
    with bench.database.transaction() as session:
        return steps.claim(
            session,
            owner=bench.owner,
            devices=bench.devices,
            kinds=tuple(VERBS),
            prefer_job=bench.prefer_job,
            lease_seconds=bench.settings.lease_seconds,
        )


def run_next(bench: Bench) -> dict[str, Any]:
    """Claim the best step and run it to its end; {"ran": False} where there is none."""
    step = claim_next(bench)
    if step is None:
        return {"ran": False}
    bench.prefer_job = step.job_id
    with Heart(bench.database, step, bench.settings.lease_seconds) as heart:
        try:
            VERBS[step.kind](bench, step, heart)
        except torch.OutOfMemoryError as error:
            reason = str(error).partition("\n")[0]
            message = f"the device ran out of memory ({reason}): lower HUARIZO_BATCH_TOKENS"
            settle(bench.database, bench.settings, step, OutOfMemoryError(message))
        except Exception as error:
            settle(bench.database, bench.settings, step, error)
    if step.kind is StepKind.RUN_TRIAL:
        _wait_for_word(bench, step)
    return {"ran": True, "step": step.id, "kind": str(step.kind)}


def _wait_for_word(bench: Bench, step: StepRecord) -> None:
    """Wait a moment for the proposer: a raised target is best run while its weights are here."""
    until = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < until:
        with bench.database.reading() as session:
            trial = trials.get(session, str(step.trial_id))
        if trial.state.final or trial.target_items > trial.scored_items:
            return
        time.sleep(0.02)
