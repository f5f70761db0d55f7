from __future__ import annotations

import re
from html.parser import HTMLParser

import httpx
import pytest

from core.records import Failure
from store import jobs, models, trials
from store.session import Database
from tests.api import seeds

EVIL = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>"


class Checker(HTMLParser):
    """Collects elements, and complains of ones that are not closed where they should be."""

    VOID = frozenset({"meta", "link", "img", "br", "input", "hr"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID and not self.get_starttag_text().endswith("/>"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID and self.open and self.open[-1] == tag:
            self.open.pop()
        elif tag not in ("line", "rect", "circle", "path"):
            raise AssertionError(f"</{tag}> closes {self.open[-3:]}")


def checked(text: str) -> Checker:
    checker = Checker()
    checker.feed(text)
    assert checker.open == []
    return checker


@pytest.fixture
def page(library) -> str:
    client, _ = library
    (job,) = client.get("/v1/jobs").json()["items"]
    return client.get(f"/jobs/{job['id']}").text


def test_the_page_is_well_formed_and_takes_nothing_from_elsewhere(page: str):
    for tag, attributes in checked(page).elements:
        for name in ("src", "href", "action"):
            assert not re.match(r"(https?:)?//", attributes.get(name) or ""), (tag, attributes)
        assert not [name for name in attributes if name.startswith("on") or name == "style"], (tag, attributes)


def test_the_page_tells_the_verdict_the_leader_and_that_scores_are_optimistic(page: str):
    assert "Gain: +3.1 points over maths" in page
    assert "Chosen by these items: optimistic." in page
    assert "Candidates read so far on these held-out items: 4" in page
    assert "non_finite_weights" in page and "holds 3 infinite elements" in page
    assert re.search(r'href="/v1/artifacts/artifact_\w+/files/model.safetensors"', page)
    assert 'class="picture layout"' in page and page.count('class="picture history"') == 2


def test_tables_have_headings_with_a_scope_and_regions_have_names(page: str):
    found = checked(page)
    assert all(attributes.get("scope") in ("col", "row") for tag, attributes in found.elements if tag == "th")
    assert all(a.get("aria-label") for tag, a in found.elements if a.get("role") in ("region", "img"))
    ids = [a["id"] for _, a in found.elements if a.get("id")]
    assert len(ids) == len(set(ids))
    named = {a["aria-labelledby"] for _, a in found.elements if a.get("aria-labelledby")}
    assert named <= set(ids)
    labels = {a.get("for") for tag, a in found.elements if tag == "label"}
    assert all(a.get("id") in labels or a.get("aria-label") for tag, a in found.elements if tag == "progress")


def test_what_people_type_is_shown_as_text(client: httpx.Client, database: Database):
    with database.transaction() as s:
        job, known = seeds.running_job(s, name=EVIL)
        seeds.scored(s, job, seeds.slerp(0.5), known, 0.6, label=EVIL)
        failed = seeds.trial(s, job, seeds.slerp(0.2), known)
        trials.fail(s, failed.id, Failure(code="bad_task", message=EVIL, where=EVIL))
        jobs.fail(s, job.id, Failure(code="bad_task", message=EVIL))
        models.register(s, EVIL, "local:x")
    for address in (f"/jobs/{job.id}", "/", f"/fragments/jobs/{job.id}", "/fragments/jobs"):
        text = client.get(address).text
        assert "<script>alert" not in text and "<img src=x" not in text
        assert "&lt;script&gt;" in text
        tags = {tag for tag, _ in checked(text).elements}
        assert not tags & {"iframe", "object"}


def test_the_changing_part_is_the_page_without_its_frame_and_has_an_etag(client: httpx.Client, database: Database):
    with database.transaction() as s:
        job, known = seeds.running_job(s)
    page, part = client.get(f"/jobs/{job.id}").text, client.get(f"/fragments/jobs/{job.id}")

    def words(text: str) -> str:
        return re.sub(r"\s+", " ", re.sub(r"\d+ s|[\d.]+ per second|value=\"[\d.]+\"", "", text))

    assert words(part.text) in words(page)
    tag = {"if-none-match": part.headers["etag"]}
    assert client.get(f"/fragments/jobs/{job.id}", headers=tag).status_code == 304
    with database.transaction() as s:
        seeds.scored(s, job, seeds.slerp(0.5), known, 0.6)
    fresh = client.get(f"/fragments/jobs/{job.id}", headers=tag)
    assert fresh.status_code == 200 and "60.0 %" in fresh.text


def test_only_what_can_be_done_is_offered(client: httpx.Client, database: Database):
    with database.transaction() as s:
        job, _ = seeds.running_job(s)

    def offered() -> set[str]:
        return set(re.findall(rf'data-post="/v1/jobs/{job.id}:(\w+)"', client.get(f"/jobs/{job.id}").text))

    assert offered() == {"pause", "cancel"}
    client.post(f"/v1/jobs/{job.id}:pause")
    assert offered() == {"resume", "cancel"}
    client.post(f"/v1/jobs/{job.id}:cancel")
    assert offered() == set()


def test_a_job_that_has_only_begun_has_a_page(client: httpx.Client, database: Database):
    with database.transaction() as s:
        job, _ = jobs.create(s, seeds.SearchJob.model_validate(seeds.body(name="")))
    page = client.get(f"/jobs/{job.id}")
    assert page.status_code == 200 and "Untitled search" in page.text
    checked(page.text)


def test_a_job_that_is_not_there_is_a_page_that_says_so(client: httpx.Client):
    page = client.get("/jobs/job_x", headers={"accept": "text/html"})
    assert page.status_code == 404 and "job_x" in page.text
    checked(page.text)
