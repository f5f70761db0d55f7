"""The dashboard in a real browser: it renders, follows the database without a reload, and asks nobody else."""

from __future__ import annotations

import os
import shutil
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from core.states import TrialState
from store import jobs, trials
from store.session import Database
from tests.api import seeds
from tests.api.conftest import serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
WAIT = 20_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    executable = shutil.which("chromium")
    if executable is None:
        reason = "no chromium on PATH: apt-get install chromium"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=executable, args=ARGUMENTS)
        yield found
        found.close()


class Watched:
    """A page, and everything that went wrong on it."""

    def __init__(self, page: Page, address: str) -> None:
        self.page, self.address = page, address
        self.wrong: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda message: self.wrong.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("requestfailed", lambda request: self.wrong.append(f"{request.failure}: {request.url}"))
        page.on(
            "response",
            lambda answer: self.wrong.append(f"{answer.status} {answer.url}") if answer.status >= 400 else None,
        )
        page.on("request", lambda request: self.requests.append(request.url))

    def check(self) -> None:
        assert self.wrong == []
        assert [url for url in self.requests if not url.startswith((self.address, "data:"))] == []


@pytest.fixture
def watched(browser: Browser, address: str) -> Iterator[Watched]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    yield Watched(context.new_page(), address)
    context.close()


def colours(picture: bytes) -> int:
    """How many different rows of pixels a PNG has: a blank page has one."""
    place, data = 8, b""
    width = struct.unpack(">I", picture[16:20])[0]
    while place < len(picture):
        (length,) = struct.unpack(">I", picture[place : place + 4])
        if picture[place + 4 : place + 8] == b"IDAT":
            data += picture[place + 8 : place + 8 + length]
        place += 12 + length
    rows, stride = zlib.decompress(data), len(zlib.decompress(data)) // struct.unpack(">I", picture[20:24])[0]
    assert stride > width
    return len({rows[start : start + stride] for start in range(0, len(rows), stride)})


def test_a_job_is_followed_without_a_reload(watched: Watched, database: Database, tmp_path: Path):
    with database.transaction() as s:
        job, known = seeds.running_job(s)
        first = seeds.scored(s, job, seeds.slerp(0.3), known, 0.58)
        running = seeds.trial(s, job, seeds.ties(0.5), known)
    page = watched.page
    page.goto(f"{watched.address}/jobs/{job.id}")
    page.evaluate("window.notReloaded = true")
    page.wait_for_selector("text=58.0 %", timeout=WAIT)
    assert page.locator("progress#budget-trials").evaluate("bar => bar.value") == 2
    assert page.locator(".lead .figure").inner_text().startswith("58.0 %")
    assert colours(page.screenshot(path=str(tmp_path / "before.png"))) > 100
    dots = page.locator(".wide svg.history .dot")
    assert dots.count() == 1

    with database.transaction() as s:
        trials.move(s, running.id, TrialState.RUNNING)
        scores = seeds.scores(0.61)
        trials.record(s, running.id, scored_items=200, scores=scores, macro=0.61, seconds_added=1)
        seeds.trial(s, job, seeds.dus("maths", 1), known)
    page.wait_for_selector("text=61.0 %", timeout=WAIT)
    assert page.locator("progress#budget-trials").evaluate("bar => bar.value") == 3
    assert dots.count() == 2
    assert page.locator(f"tr[data-key={running.id}]").get_attribute("class") == "leader"
    assert page.locator(f"tr[data-key={first.id}]").get_attribute("class") is None

    with database.transaction() as s:
        jobs.cancel(s, job.id)
    page.wait_for_selector(".head .chip.cancelled", timeout=WAIT)
    assert page.locator("button[data-post]").count() == 0
    assert page.evaluate("window.notReloaded") is True
    watched.check()


def test_sorting_stays_while_the_page_changes(watched: Watched, database: Database):
    with database.transaction() as s:
        job, known = seeds.running_job(s)
        for value in (0.55, 0.59, 0.57):
            seeds.scored(s, job, seeds.slerp(value), known, value)
    page = watched.page
    page.goto(f"{watched.address}/jobs/{job.id}")

    def numbers() -> list[str]:
        return page.locator("#trial-table tbody tr td:first-child").all_inner_texts()

    assert numbers() == ["4", "5", "3"]
    page.get_by_role("button", name="No.").click()
    assert numbers() == ["5", "4", "3"]
    page.get_by_role("button", name="No.").click()
    assert numbers() == ["3", "4", "5"]
    assert page.locator("#trial-table th[aria-sort=ascending]").inner_text().startswith("No.")
    with database.transaction() as s:
        seeds.scored(s, job, seeds.slerp(0.9), known, 0.6)
    page.wait_for_selector("text=60.0 %", timeout=WAIT)
    assert numbers() == ["3", "4", "5", "6"]
    watched.check()


def test_pausing_and_resuming_by_button(watched: Watched, database: Database):
    with database.transaction() as s:
        job, _ = seeds.running_job(s)
    page = watched.page
    page.goto(f"{watched.address}/jobs/{job.id}")
    page.get_by_role("button", name="Pause").click()
    page.wait_for_selector(".head .chip.paused", timeout=WAIT)
    page.get_by_role("button", name="Resume").click()
    page.wait_for_selector(".head .chip.running", timeout=WAIT)
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Cancel").click()
    page.wait_for_selector(".head .chip.cancelled", timeout=WAIT)
    with database.reading() as s:
        assert jobs.get(s, job.id).state == "cancelled"
    watched.check()


def test_a_lost_connection_is_said_and_taken_up_again(browser: Browser, settings, database: Database):
    with database.transaction() as s:
        job, known = seeds.running_job(s)
    context = browser.new_context()
    page = context.new_page()
    with serving(settings, database) as address:
        page.goto(f"{address}/jobs/{job.id}")
        assert not page.locator("#connection").is_visible()
        page.route("**/fragments/**", lambda route: route.abort())
        page.wait_for_selector("#connection:visible", timeout=WAIT)
        assert "retrying" in page.locator("#connection").inner_text()
        with database.transaction() as s:
            seeds.scored(s, job, seeds.slerp(0.3), known, 0.58)
        page.unroute("**/fragments/**")
        page.wait_for_selector("text=58.0 %", timeout=WAIT)
        page.wait_for_selector("#connection", state="hidden", timeout=WAIT)
    context.close()


def test_a_hidden_page_does_not_ask(watched: Watched, database: Database):
    with database.transaction() as s:
        job, _ = seeds.running_job(s)
    page = watched.page
    page.goto(f"{watched.address}/jobs/{job.id}")
    page.wait_for_timeout(700)
    assert [url for url in watched.requests if "/fragments/" in url]
    page.evaluate(
        "Object.defineProperty(document, 'hidden', {get: () => window.away, configurable: true});"
        "window.away = true; document.dispatchEvent(new Event('visibilitychange'))"
    )
    page.wait_for_timeout(600)
    before = len(watched.requests)
    page.wait_for_timeout(1200)
    assert len(watched.requests) == before
    page.evaluate("window.away = false; document.dispatchEvent(new Event('visibilitychange'))")
    page.wait_for_timeout(600)
    assert len(watched.requests) > before
    watched.check()


@pytest.mark.parametrize("width", [360, 800, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_is_wider_than_its_window_or_blank(browser: Browser, library, width, scheme, tmp_path: Path):
    client, _ = library
    (job,) = client.get("/v1/jobs").json()["items"]
    address = str(client.base_url).rstrip("/")
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    for path in ("/", f"/jobs/{job['id']}"):
        watched = Watched(context.new_page(), address)
        watched.page.goto(address + path)
        assert watched.page.evaluate("document.documentElement.scrollWidth") <= width
        assert colours(watched.page.screenshot(path=str(tmp_path / "page.png"), full_page=True)) > 50
        visible = [watched.page.locator(f".{kind} svg.history").is_visible() for kind in ("wide", "narrow")]
        assert path == "/" or visible == [width > 600, width <= 600]
        watched.check()
    context.close()


def test_what_is_morphed_equals_what_is_drawn_afresh(watched: Watched, database: Database):
    with database.transaction() as s:
        job, known = seeds.running_job(s)
    page = watched.page
    page.goto(f"{watched.address}/jobs/{job.id}")
    with database.transaction() as s:
        for value in (0.55, 0.61, 0.52):
            seeds.scored(s, job, seeds.linear(value, 0.3), known, value, items=200 if value > 0.53 else 50)
        seeds.trial(s, job, seeds.dus("code", 2), known)
        jobs.pause(s, job.id)
    page.wait_for_selector(".head .chip.paused", timeout=WAIT)
    same = page.evaluate(
        """async () => {
          const live = document.querySelector("[data-live]");
          const fresh = document.createElement("div");
          fresh.innerHTML = await (await fetch(live.dataset.live)).text();
          const plain = (node) => {
            const copy = node.cloneNode(true);
            for (const clock of copy.querySelectorAll("time, [data-clock]")) clock.remove();
            return copy.innerHTML.replace(/\\s+/g, " ").trim();
          };
          return [plain(live), plain(fresh)];
        }"""
    )
    assert same[0] == same[1]
    watched.check()
