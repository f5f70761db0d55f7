"""The job's page follows its gradient refinements."""

from __future__ import annotations

import httpx
import pytest

from api.pages import refinements
from core.records import Device, StepKind
from core.refinement import PROGRESS
from core.states import StepState
from store import events, steps
from store.session import Database
from tests.api import seeds


@pytest.fixture
def refining(database: Database) -> str:
    """A running job with two refinements; the first was interrupted after its second look and begun again."""
    with database.transaction() as s:
        job, _ = seeds.running_job(s)
        first, _ = (
            steps.add(s, StepKind.REFINE, Device.CPU, job_id=job.id, payload=payload)
            for payload in (
                {"number": 4, "granularity": "holes", "max_items": 1500},
                {"number": 4, "granularity": "tensor", "max_items": 1500},
            )
        )
        looks = [
            (0, None, 0.61, 90),
            (3, 0.9, 0.64, 612),
            (0, None, 0.61, 90),
            (3, 0.8, 0.66, 612),
            (6, 0.7, 0.65, 1134),
        ]
        for step, loss, score, items in looks:
            payload = {"step_id": first.id, "number": 4, "granularity": "holes", "step": step}
            events.append(
                s, job.id, PROGRESS, {**payload, "loss": loss, "score": score, "items": items, "seconds": 1.0}
            )
    return job.id


def test_a_refinement_is_told_by_the_last_word_of_each_look(database: Database, refining: str):
    with database.reading() as s:
        ways = refinements.told(s, refining)
    done, waiting = sorted(ways, key=lambda way: way.moved, reverse=True)
    assert (done.number, done.moved, done.state) == (4, "the values of the space", StepState.QUEUED)
    assert done.losses == ((612.0, 0.8), (1134.0, 0.7))
    assert done.scores == ((90.0, 0.61), (612.0, 0.66), (1134.0, 0.65))
    assert done.best == (612.0, 0.66)
    assert (done.items, done.allowed, done.ended) == (1134, 1500, "")
    assert (waiting.items, waiting.best, refinements.pictures(waiting)) == (0, None, [])


def test_the_page_draws_loss_and_kept_back_score_of_what_is_being_refined(client: httpx.Client, refining: str):
    page = client.get(f"/jobs/{refining}", headers={"accept": "text/html"}).text
    assert "From number 4, moving the values of the space" in page
    assert "From number 4, moving every tensor by itself" in page
    assert "best on kept-back items 66.0 % after 612" in page
    assert "0.7 after 1,134 items" in page and "65.0 % after 1,134 items" in page
    assert "Its first look at kept-back items appears here." in page
    assert client.get(f"/fragments/jobs/{refining}").status_code == 200


def test_a_search_that_refines_nothing_says_nothing_of_it(client: httpx.Client, database: Database):
    with database.transaction() as s:
        job, _ = seeds.running_job(s)
    assert "Gradient refinement" not in client.get(f"/jobs/{job.id}", headers={"accept": "text/html"}).text
