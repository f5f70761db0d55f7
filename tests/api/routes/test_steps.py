"""Steps over HTTP: whoever asked for work can learn what became of it."""

from __future__ import annotations

import httpx

from core.records import Device, Failure, StepKind
from store import steps
from store.session import Database


def test_a_step_tells_its_state_and_why_it_failed(client: httpx.Client, database: Database) -> None:
    with database.transaction() as s:
        step = steps.add(s, StepKind.EXPORT, Device.CPU)
    assert client.get(f"/v1/steps/{step.id}").json()["state"] == "queued"
    with database.transaction() as s:
        held = steps.claim(s, owner="w", devices=(Device.CPU,), lease_seconds=60)
        assert held is not None
        failure = Failure(code="trial_failed", message="the weights differ")
        steps.fail(s, held.id, held.fence, failure, retry=False, max_attempts=1)
    told = client.get(f"/v1/steps/{step.id}").json()
    assert (told["state"], told["kind"]) == ("failed", "export")
    assert (told["failure"]["code"], told["failure"]["message"]) == ("trial_failed", "the weights differ")


def test_an_unknown_step_is_not_found(client: httpx.Client) -> None:
    answer = client.get("/v1/steps/step_nothing")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
