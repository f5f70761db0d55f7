"""The golden cases in which this project means to differ from mergekit 0.1.5, and why."""

from __future__ import annotations

#: Case id to reason; a test in `test_deviations.py` shows both values of each.
DEVIATIONS: dict[str, str] = {
    "slerp/t 0.3/zero": "a zero tensor has no direction: the line is taken, not a right angle",
    "task_arithmetic/cancelling/apart": "weights that cancel are not divided by what float32 leaves of their sum",
}
