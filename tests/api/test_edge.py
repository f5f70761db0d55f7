from __future__ import annotations

import json
import logging

import httpx
import pytest

from api.logs import JsonLines
from core.settings import Settings
from store.session import Database
from tests.api.conftest import serving, settings_of


def test_every_answer_has_an_id_and_forbids_what_comes_from_elsewhere(bare: httpx.Client):
    for path in ("/healthz", "/v1/nothing", "/static/page.js"):
        headers = bare.get(path).headers
        assert headers["x-request-id"].startswith("req_")
        assert headers["x-content-type-options"] == "nosniff"
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy


def test_an_id_that_a_caller_gives_is_kept_unless_it_could_forge_a_log(bare: httpx.Client):
    assert bare.get("/healthz", headers={"x-request-id": "mine-1"}).headers["x-request-id"] == "mine-1"
    for odd in ("a b", 'x"y', "x" * 200, "{}"):
        assert bare.get("/healthz", headers={"x-request-id": odd}).headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
    ids=str,
)
def test_another_sites_page_may_not_change_anything(bare: httpx.Client, headers):
    answer = bare.post("/v1/jobs/job_x:cancel", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "cross_origin")


def test_our_own_page_and_programs_may(bare: httpx.Client):
    own = {"origin": str(bare.base_url).rstrip("/"), "sec-fetch-site": "same-origin"}
    assert bare.post("/v1/jobs/job_x:cancel", headers=own).json()["code"] == "service_unavailable"
    assert bare.post("/v1/jobs/job_x:cancel").json()["code"] == "service_unavailable"


def test_a_local_service_answers_to_no_other_name(bare: httpx.Client, folders):
    answer = bare.get("/healthz", headers={"host": "rebound.example:8000"})
    assert (answer.status_code, answer.json()["code"]) == (421, "host_not_allowed")
    for host in ("localhost:1", "127.0.0.1", "[::1]:9", "me.localhost"):
        assert bare.get("/healthz", headers={"host": host}).status_code == 200
    public = settings_of(folders, host="0.0.0.0")
    with serving(public, Database("postgresql+psycopg://nowhere")) as address:
        assert httpx.get(f"{address}/healthz", headers={"host": "any.example"}, trust_env=False).status_code == 200


def test_a_zero_byte_in_an_address_is_refused(bare: httpx.Client):
    for path in ("/v1/jobs/a%00b", "/v1/jobs?cursor=a%00b"):
        answer = bare.get(path)
        assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")


def test_each_request_is_one_line_of_json_with_its_id(settings: Settings, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, "api.access"), serving(settings, Database("postgresql+psycopg://x")) as address:
        httpx.get(f"{address}/v1/problems/too_large", headers={"x-request-id": "abc"}, trust_env=False)
    (record,) = [record for record in caplog.records if record.name == "api.access"]
    line = json.loads(JsonLines().format(record))
    assert line["path"] == "/v1/problems/too_large"
    assert (line["method"], line["status"], line["level"]) == ("GET", 200, "info")
    assert line["message"] == "GET /v1/problems/too_large 200"
    assert line["ms"] >= 0
