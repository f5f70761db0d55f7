"""The client turns every refusal into a typed problem."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from core.errors import ServiceUnavailableError, TruncatedCheckpointError
from huarizo.client import ApiProblem, Client
from huarizo.embedded.ports import free_port

Handler = Callable[[httpx.Request], httpx.Response]


def client_of(handler: Handler) -> Client:
    return Client("http://service.test/", transport=httpx.MockTransport(handler))


def test_a_problem_document_becomes_a_typed_problem() -> None:
    body = {
        "title": "No merge method of that name",
        "status": 422,
        "code": "unknown_method",
        "detail": "unknown merge method 'tyes': did you mean 'ties'?",
        "where": "space.families.0",
        "errors": [{"where": "space.families.0", "message": "unknown"}],
    }
    client = client_of(lambda _: httpx.Response(422, json=body, headers={"content-type": "application/problem+json"}))
    with pytest.raises(ApiProblem) as caught:
        client.submit({"kind": "search"})
    problem = caught.value
    assert (problem.status, problem.code, problem.title) == (422, "unknown_method", "No merge method of that name")
    assert (problem.detail, problem.where) == (body["detail"], "space.families.0")
    assert problem.errors == (("space.families.0", "unknown"),)
    assert str(problem) == body["detail"]
    assert not problem.passing


@pytest.mark.parametrize(
    "answer", [httpx.Response(502, text="<html>Bad\n Gateway</html>"), httpx.Response(503, json=[])]
)
def test_an_answer_of_a_proxy_is_a_problem_that_may_pass(answer: httpx.Response) -> None:
    with pytest.raises(ApiProblem) as caught:
        client_of(lambda _: answer).job("job_1")
    assert caught.value.code == f"http_{answer.status_code}"
    assert caught.value.passing


def test_a_refused_connection_names_the_way_out() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with Client(url) as client, pytest.raises(ServiceUnavailableError, match="huarizo up") as caught:
        client.jobs()
    assert url in caught.value.message


def test_a_timeout_is_an_unavailable_service() -> None:
    def late(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("timed out", request=request)

    with pytest.raises(ServiceUnavailableError, match="timed out"):
        client_of(late).health()


def test_something_else_that_answers_on_the_port_is_recognised() -> None:
    with pytest.raises(ServiceUnavailableError, match="HUARIZO_API_URL"):
        client_of(lambda _: httpx.Response(200, text="Welcome to my blog")).jobs()


def test_lists_follow_cursors_up_to_the_limit() -> None:
    asked: list[dict[str, str]] = []

    def page(request: httpx.Request) -> httpx.Response:
        query = dict(request.url.params)
        asked.append(query)
        start = int(query.get("cursor", 0))
        stop = min(start + int(query["limit"]), 450)
        items = [{"number": number} for number in range(start, stop)]
        return httpx.Response(200, json={"items": items, "next_cursor": str(stop) if stop < 450 else None})

    client = client_of(page)
    assert [trial["number"] for trial in client.trials("job_1")] == list(range(450))
    assert [query.get("cursor") for query in asked] == [None, "200", "400"]
    assert len(client.jobs(limit=250)) == 250
    assert asked[-1] == {"limit": "50", "cursor": "200"}


def test_the_idempotency_key_travels_as_a_header() -> None:
    seen: list[httpx.Request] = []

    def accept(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(202, json={"id": "job_1"})

    client = client_of(accept)
    client.submit({"kind": "search"}, idempotency_key="once")
    client.submit({"kind": "search"})
    assert [request.headers.get("idempotency-key") for request in seen] == ["once", None]
    assert json.loads(seen[0].content) == {"kind": "search"}


def test_actions_are_verbs_after_the_id_and_ids_cannot_leave_their_place() -> None:
    paths: list[str] = []

    def accept(request: httpx.Request) -> httpx.Response:
        paths.append(request.url.raw_path.decode())
        return httpx.Response(200, json={"id": "x", "items": []})

    client = client_of(accept)
    client.cancel("job_1")
    client.export_trial("trial_1")
    client.events("job_1", after=7)
    client.job("../models?x")
    assert paths == [
        "/v1/jobs/job_1:cancel",
        "/v1/trials/trial_1:export",
        "/v1/jobs/job_1/events?after=7",
        "/v1/jobs/..%2Fmodels%3Fx",
    ]


def test_a_download_returns_the_hash_of_what_was_written(tmp_path: Path) -> None:
    content = bytes(range(256)) * 9000
    counts: list[int] = []
    client = client_of(lambda _: httpx.Response(200, content=content))
    digest = client.download("art_1", "a/model.safetensors", tmp_path / "x", seen=counts.append)
    assert digest == hashlib.sha256(content).hexdigest()
    assert (tmp_path / "x").read_bytes() == content
    assert sum(counts) == len(content)


def test_a_download_that_breaks_off_is_told_apart_from_a_service_that_is_away(tmp_path: Path) -> None:
    def broken(request: httpx.Request) -> httpx.Response:
        raise httpx.RemoteProtocolError("peer closed connection", request=request)

    with pytest.raises(TruncatedCheckpointError, match="only in part"):
        client_of(broken).download("art_1", "model.safetensors", tmp_path / "x")


def test_a_missing_file_is_a_problem_and_not_written_as_content(tmp_path: Path) -> None:
    client = client_of(lambda _: httpx.Response(404, json={"code": "not_found", "title": "No such row"}))
    with pytest.raises(ApiProblem) as caught:
        client.download("art_1", "nothing", tmp_path / "x")
    assert caught.value.code == "not_found"
