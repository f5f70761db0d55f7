"""Live progress of a job: a panel on a terminal, plain lines anywhere else, on stderr."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from core.states import JobState
from huarizo.cli.patience import patiently
from huarizo.cli.verdict import moment, percent
from huarizo.client import Client

POLL_SECONDS = 1.0
LINE_SECONDS = 3.0
SHOWN_EVENTS = 5
LIMITS = {
    "trials": "trials",
    "item_evaluations": "items",
    "seconds": "seconds",
    "device_seconds": "device seconds",
    "training_steps": "steps",
}
Json = Mapping[str, Any]


class View(Protocol):
    """Where progress is shown."""

    def update(self, job: Json, events: deque[Json]) -> None:
        """Show the job as it is now."""


def follow(client: Client, job_id: str, console: Console, *, poll_seconds: float = POLL_SECONDS) -> dict[str, Any]:
    """Show a job until it is final and return it; restarts of the service are waited out.

    Raises:
        ServiceUnavailableError, ApiProblem: the service stayed away, or knows no such job.
    """
    if not console.is_terminal:
        return _follow(client, job_id, Lines(lambda line: console.print(line, markup=False)), poll_seconds)
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        return _follow(client, job_id, Panels(live), poll_seconds)


def _follow(client: Client, job_id: str, view: View, poll_seconds: float) -> dict[str, Any]:
    events: deque[Json] = deque(maxlen=SHOWN_EVENTS)
    seen = 0
    while True:
        job = patiently(lambda: client.job(job_id))
        for event in patiently(lambda after=seen: client.events(job_id, after=after)):  # type: ignore[misc]
            seen = max(seen, int(event["id"]))
            events.append(event)
        view.update(job, events)
        if JobState(job["state"]).final:
            return job
        time.sleep(poll_seconds)


class Panels:
    """A panel that is drawn anew."""

    def __init__(self, live: Live) -> None:
        self._live = live

    def update(self, job: Json, events: deque[Json]) -> None:
        self._live.update(panel(job, events))


class Lines:
    """A line whenever something moved, at most one every LINE_SECONDS."""

    def __init__(self, write: Callable[[str], None], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._write = write
        self._clock = clock
        self._last = ""
        self._at = -LINE_SECONDS

    def update(self, job: Json, events: deque[Json]) -> None:
        line, now = status_line(job), self._clock()
        final = JobState(job["state"]).final
        if line != self._last and (final or now - self._at >= LINE_SECONDS):
            self._last, self._at = line, now
            self._write(line)


def panel(job: Json, events: deque[Json]) -> RenderableType:
    """State, one bar for each limit of the budget, the best so far, the last events."""
    progress = job["progress"]
    bars = Table.grid(padding=(0, 1))
    for use in progress["budget"]:
        label = LIMITS.get(use["limit"], use["limit"])
        bar = ProgressBar(total=use["allowed"], completed=min(use["used"], use["allowed"]), width=40)
        bars.add_row(label, bar, f"{use['used']:,.0f} / {use['allowed']:,.0f}")
    if job.get("training"):
        lines = [f"loss        {loss(job)}"]
    else:
        lines = [f"candidates  {tally(progress['trials'])}", f"items       {progress['items_scored']:,} scored"]
        lines += [f"best        {best(progress)}"]
        lines += [f"generator   {own_generator(job['generator'])}"] if job.get("generator") else []
    past = Text("\n".join(map(event_line, events)), style="dim", no_wrap=True, overflow="ellipsis")
    parts: list[RenderableType] = [bars, Text("\n".join(lines)), past]
    title = f"{job['name'] or job['id']}: {job['state']}{remaining(progress)}"
    return Panel(Group(*parts), title=Text(title), title_align="left", subtitle=Text(job["id"]), subtitle_align="right")


def status_line(job: Json) -> str:
    """The same on one line."""
    progress = job["progress"]
    uses = [
        f"{LIMITS.get(use['limit'], use['limit'])} {use['used']:,.0f}/{use['allowed']:,.0f}"
        for use in progress["budget"]
        if use["limit"] != "seconds"  # it always moves
    ]
    if job.get("training"):
        return "  ".join([job["state"], *uses, f"loss {loss(job)}"])
    parts = [job["state"], *uses, f"{progress['items_scored']:,} items scored", f"best {best(progress)}"]
    return "  ".join(parts)


def loss(job: Json) -> str:
    """The last loss of a training."""
    told = job["training"]["loss"]
    return "none yet" if told is None else f"{told:.4g}"


def own_generator(own: Json) -> str:
    """What becomes of the generator that a search trains itself."""
    told, failure = own["training"], own.get("failure") or {}
    match own["state"]:
        case "awaited":
            return f"trained after {own['train_after']} candidates, {own['ended']} have ended"
        case "training":
            return f"in training, step {told['done']:,} of {told['steps']:,}"
        case "ready":
            return f"{str(told['generator'])[:16]}…, artifact {own['artifact']}"
        case "failed":
            return f"failed, the search goes on without it: {failure.get('code')}: {failure.get('message')}"
    return "not trained: the search ended before"


def best(progress: Json) -> str:
    """The leader on search items, beside the best parent."""
    leader, parent = progress.get("best"), progress.get("best_parent")
    beside = f", best parent {percent(parent['macro'])} % ({parent['label']})" if parent else ""
    if not leader:
        return f"none yet{beside}"
    return f"{percent(leader['macro'])} % on search items (#{leader['number']} {leader['label']}){beside}"


def tally(states: Mapping[str, int]) -> str:
    """`3 scored, 1 running`."""
    return ", ".join(f"{count} {state}" for state, count in sorted(states.items()) if count) or "none yet"


def remaining(progress: Json) -> str:
    """Time left, roughly."""
    eta = progress.get("eta_seconds")
    if eta is None:
        return ""
    return f", about {eta / 60:.0f} min left" if eta >= 90 else f", about {eta:.0f} s left"


def event_line(event: Json) -> str:
    """One event: local time, what happened."""
    return f"{moment(event['created_at']).astimezone():%H:%M:%S}  {happened(event['kind'], event['payload'])}"


def happened(kind: str, payload: Json) -> str:
    """An event in words; of kinds unknown here, what it carries."""
    match kind:
        case "job_state":
            return f"job {payload.get('state')}"
        case "trial_state":
            score = f" {percent(payload['macro'])} %" if payload.get("macro") is not None else ""
            return f"candidate #{payload.get('number')} {payload.get('state')}{score}"
        case "trial_target":
            return f"candidate #{payload.get('number')} goes on to {payload.get('target_items')} items a task"
        case "reference":
            return f"everybody is compared with {payload.get('label')}: {payload.get('reason')}"
        case "rungs":
            sizes = ", ".join(map(str, payload.get("rungs") or ()))
            cost = f"a build costs {payload['kappa']:,.0f} items; " if payload.get("kappa") is not None else ""
            return f"{cost}rungs of {sizes} items a task: {payload.get('reason')}"
        case "training":
            return f"step {payload.get('done')} of {payload.get('of')}, loss {payload.get('loss')}"
        case "generator_planned":
            numbers = ", ".join(f"#{number}" for number in payload.get("elite") or ())
            return f"a generator is to be trained, on {numbers or 'models alone'}"
        case "generator_ready":
            return f"the generator is there ({str(payload.get('generator'))[:16]}…): samples are proposed from now on"
        case "generator_failed":
            return f"no generator, the search goes on without samples: {payload.get('code')}: {payload.get('message')}"
        case "sample_passed":
            return f"a sample is worth scoring: its perplexity is {payload.get('perplexity'):.3f} times its base's"
        case "finalists":
            return f"{len(payload.get('ranked') or ())} finalists ranked, held-out items are opened"
    return " ".join([kind, *(f"{name}={value}" for name, value in payload.items() if value not in (None, ""))])
