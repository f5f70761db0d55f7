"""Nothing that can be posted makes the service fail: it answers, or it says what is wrong."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import httpx

from store.session import Database
from tests.api import seeds

ODD: list[Any] = [
    None, True, 0, -1, 1, 2**63, -(2**70), 1e300, -0.0, 0.5, "", "x", "a" * 5000, "é🦙", "../..", "local:/etc", "hub:a/b",
    "local:" + "a/" * 120, "base", "ties", "slerp", [], {}, [[]], [None], {"a": None}, {"groups": []}, {"groups": [1, 2]},
    [{"filter": "mlp", "value": 1}], [{"value": {}}], {"low": 0, "high": 1}, {"low": 1, "high": 0, "log": True},
    {"low": 0, "high": 1, "log": True}, [0.1, 0.9], {"maths": 1}, {"maths": [0, 1], "code": {"groups": [1]}}, ["base", "base"],
]  # fmt: skip

RECIPES = [
    seeds.linear(0.5, 0.4), seeds.slerp(0.3), seeds.ties(0.4), seeds.dus("maths", 2),
]  # fmt: skip


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in a JSON value."""
    if isinstance(value, dict):
        return [(value, key) for key in value] + [place for inner in value.values() for place in places(inner)]
    if isinstance(value, list):
        return [(value, i) for i in range(len(value))] + [place for inner in value for place in places(inner)]
    return []


def spoilt(draw: random.Random, body: Any) -> Any:
    """A copy with one to three values replaced, removed or added."""
    body = copy.deepcopy(body)
    for _ in range(draw.randint(1, 3)):
        found = places(body)
        if not found:
            break
        container, key = draw.choice(found)
        if draw.random() < 0.15:
            del container[key]
        elif draw.random() < 0.15 and isinstance(container, dict):
            container[draw.choice(["params", "sources", "weight", "t", "x", "base"])] = copy.deepcopy(draw.choice(ODD))
        else:
            container[key] = copy.deepcopy(draw.choice(ODD))
    return body


def test_no_posted_body_makes_the_service_fail(client: httpx.Client, database: Database):
    with database.transaction() as s:
        for name in seeds.PARENTS:
            seeds.ready_model(s, name)
    draw = random.Random(11)
    answered = {"/v1/jobs": set(), "/v1/recipes:resolve": set(), "/v1/models": set()}
    for _ in range(150):
        recipe = {"recipe": draw.choice(RECIPES).model_dump(mode="json", exclude_none=True), "models": {}}
        for path, body in (
            (
                "/v1/jobs",
                seeds.body(export={"when": "never"}, racing={"eta": 3, "rungs": [5]}, strategy={"name": "tpe"}),
            ),
            ("/v1/recipes:resolve", recipe),
            ("/v1/models", {"name": "base", "ref": "local:nursery/base"}),
        ):
            sent = spoilt(draw, body)
            answer = client.post(path, content=json.dumps(sent), headers={"content-type": "application/json"})
            assert answer.status_code < 500, (path, sent, answer.text)
            if answer.status_code >= 400:
                assert answer.headers["content-type"] == "application/problem+json"
                assert answer.json()["detail"] and answer.json()["code"]
                assert len(answer.text) < 20_000
            answered[path].add(answer.status_code)
    assert 422 in answered["/v1/jobs"] and {200, 422} <= answered["/v1/recipes:resolve"]


def test_no_address_makes_the_service_fail(library):
    client, _ = library
    (job,) = [item["id"] for item in client.get("/v1/jobs?limit=1").json()["items"]]
    for path in ("/v1/jobs", f"/v1/jobs/{job}/trials", "/v1/models", "/v1/artifacts", f"/v1/jobs/{job}/events", "/"):
        for query in (
            "cursor=AAAA", "cursor=W10", "cursor=bnVsbA", "cursor=WyJuZXdlc3QiLDEsMl0", "cursor=%F0%9F%A6%99", "cursor=",
            "cursor=WyJudW1iZXIiLDFlOTldXQ", "limit=99999999999999999999", "limit=-1", "limit=1e3", "after=99999999999999999999",
            "order=x", "state=", "cursor=WyJuZXdlc3QiLCIyMDI2LTAxLTAxIiwieCJd", "cursor=WyJudW1iZXIiLDk5OTk5OTk5OTk5OTk5OTk5OTk5XQ",
        ):  # fmt: skip
            answer = client.get(f"{path}?{query}")
            assert answer.status_code in (200, 422), (path, query, answer.text)
