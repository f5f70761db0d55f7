from __future__ import annotations

import json

import httpx
import pytest

from api.strict import parse
from tests.api import seeds

REFUSED = {
    "not JSON": b'{"name": ',
    "NaN": b'{"a": NaN}',
    "Infinity": b'{"a": [Infinity]}',
    "-Infinity": b'{"a": -Infinity}',
    "a number beyond floats": b'{"a": 1e999}',
    "a number of too many digits": b'{"a": ' + b"1" * 5000 + b"}",
    "too deep": b"[" * 60_000,
    "a zero character": b'{"a": "x\\u0000y"}',
    "a zero character in a key": b'{"x\\u0000y": 1}',
    "half a surrogate pair": b'{"a": "\\ud800"}',
    "bad UTF-8": b'{"a": "\xff"}',
    "nothing": b"",
}


@pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED)
def test_what_python_would_let_through_is_refused(body):
    with pytest.raises(json.JSONDecodeError):
        parse(body)


def test_good_json_is_parsed_as_usual():
    assert parse('{"a": [1, -0.5e3, true, null, "é \\ud83e\\udd99 \\\\u0000"]}'.encode()) == {
        "a": [1, -500.0, True, None, "é 🦙 \\u0000"]
    }


@pytest.mark.parametrize("body", [b for b in REFUSED.values() if b], ids=[name for name, b in REFUSED.items() if b])
def test_a_refused_body_is_a_problem(bare: httpx.Client, body):
    answer = bare.post("/v1/jobs", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_json")


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", None]
)
def test_a_body_that_is_not_said_to_be_json_is_refused(bare: httpx.Client, content_type):
    headers = {"content-type": content_type} if content_type else {}
    answer = bare.post("/v1/jobs", content=json.dumps(seeds.body()).encode(), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


def test_a_body_over_the_limit_is_refused_whether_its_length_is_told_or_not(bare: httpx.Client):
    told = bare.post("/v1/jobs", json={"name": "x" * 300_000})
    assert (told.status_code, told.json()["code"]) == (413, "too_large")

    def pieces():
        for _ in range(40):
            yield b" " * 10_000

    untold = bare.post("/v1/jobs", content=pieces(), headers={"content-type": "application/json"})
    assert "content-length" not in untold.request.headers
    assert (untold.status_code, untold.json()["code"]) == (413, "too_large")
