"""Ask again while a service restarts."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from core.errors import ServiceUnavailableError
from huarizo.cli.console import remark
from huarizo.client import ApiProblem

PATIENCE_SECONDS = 180.0
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 5.0
T = TypeVar("T")


def patiently(
    ask: Callable[[], T],
    *,
    seconds: float = PATIENCE_SECONDS,
    first_pause: float = FIRST_PAUSE,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """The answer, however often it takes; for questions only, never for orders.

    Raises:
        ServiceUnavailableError, ApiProblem: the last failure, once `seconds` of pauses are used up; at once if asking
            again cannot help.
    """
    pause, waited = first_pause, 0.0
    while True:
        try:
            return ask()
        except (ServiceUnavailableError, ApiProblem) as error:
            if (isinstance(error, ApiProblem) and not error.passing) or waited >= seconds:
                raise
            if waited == 0.0:
                remark(f"the service does not answer for now, asking again for up to {seconds:g} s ({error})")
        sleep(pause)
        waited += pause
        pause = min(2 * pause, LONGEST_PAUSE)
