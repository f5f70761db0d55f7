from __future__ import annotations

import re

import httpx

from core.jobs import SearchJob
from store import jobs
from store.session import Database
from tests.api import seeds


def test_an_empty_service_says_how_to_begin(client: httpx.Client):
    assert "No jobs yet" in client.get("/").text


def test_jobs_are_listed_newest_first_over_pages(database: Database, folders):
    from tests.api.conftest import serving, settings_of

    with database.transaction() as s:
        for number in range(5):
            jobs.create(s, SearchJob.model_validate(seeds.body(name=f"job {number}")))
    with serving(settings_of(folders, page_size=2), database) as address:
        seen, path = [], "/"
        while path:
            text = httpx.get(address + path, trust_env=False).text
            seen += re.findall(r">(job \d)</a>", text)
            following = re.search(r'href="(/\?cursor=[^"]+)" rel="next"', text)
            path = following[1] if following else ""
    assert seen == [f"job {number}" for number in (4, 3, 2, 1, 0)]


def test_a_job_shows_its_state_best_score_and_lead(library):
    client, _ = library
    text = client.get("/").text
    (job,) = client.get("/v1/jobs").json()["items"]
    assert f'href="/jobs/{job["id"]}"' in text
    assert '<span class="chip succeeded">succeeded</span>' in text
    assert f"{job['best'] * 100:.1f} %" in text
    assert f"{(job['best'] - job['best_parent']) * 100:+.1f}".replace("-", "−") + " points" in text
    assert '<span class="verdict gain">gain</span>' in text
