from __future__ import annotations

import pytest

from api.schemas.failures import FailureOut, without_paths
from core.records import Failure


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("'/var/lib/huarizo/models/a/model.safetensors' is cut short", "'…/model.safetensors' is cut short"),
        ("no space left for /data/artifacts/checkpoint_1: free some", "no space left for …/checkpoint_1: free some"),
        ("nothing lies at 'local:/models/a'", "nothing lies at 'local:/models/a'"),
        ("see https://example.org/a/b", "see https://example.org/a/b"),
        ("3/4 of 1/2, and/or", "3/4 of 1/2, and/or"),
        ("POST /jobs", "POST /jobs"),
    ],
)
def test_where_the_service_keeps_things_is_cut_away(text, shown):
    assert without_paths(text) == shown


def test_a_failure_keeps_its_code_and_place():
    found = FailureOut.of(Failure(code="bad_task", message="x /a/b/c y", where="task"))
    assert found is not None and found.model_dump() == {"code": "bad_task", "message": "x …/c y", "where": "task"}
    assert FailureOut.of(None) is None
