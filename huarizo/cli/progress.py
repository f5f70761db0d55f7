"""A bar on a terminal, a line now and then anywhere else; always on stderr."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Advance = Callable[[str, float], None]
LINE_SECONDS = 5.0


@contextmanager
def shown(console: Console, title: str) -> Iterator[Advance]:
    """Yield a function that takes what is being done and the fraction of the whole that is done."""
    if not console.is_terminal:
        yield Lines(console, title).advance
        return
    percent = TextColumn("{task.percentage:>3.0f} %")
    text = TextColumn("[progress.description]{task.description}", markup=False)
    with Progress(text, BarColumn(), percent, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task(title, total=1.0)
        yield lambda doing, done: bar.update(task, description=f"{title}: {doing}", completed=done)


class Lines:
    """Progress as plain lines: one for each new thing done, and at most one every LINE_SECONDS besides."""

    def __init__(self, console: Console, title: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._title = title
        self._clock = clock
        self._last: tuple[str, float] | None = None

    def advance(self, doing: str, done: float) -> None:
        """Print if it is time to."""
        now = self._clock()
        if self._last is not None and now - self._last[1] < LINE_SECONDS and done < 1.0:
            return
        self._last = (doing, now)
        self._console.print(f"{self._title}: {doing} {done:.0%}", markup=False)
