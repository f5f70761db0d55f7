from __future__ import annotations

import httpx

import migrations
from core.settings import Settings
from store.session import Database
from tests.api.conftest import serving


def test_a_service_with_all_its_parts_is_ready(client: httpx.Client):
    assert client.get("/healthz").json()["status"] == "ok"
    assert client.get("/readyz").json() == {
        "status": "ok",
        "checks": {"database": "ok", "schema": "ok", "broker": "ok"},
    }


def test_a_service_without_database_and_broker_lives_but_is_not_ready(bare: httpx.Client):
    assert bare.get("/healthz").status_code == 200
    answer = bare.get("/readyz")
    assert (answer.status_code, answer.json()["code"]) == (503, "service_unavailable")
    assert [error["where"] for error in answer.json()["errors"]] == ["database", "broker"]


def test_a_broker_that_is_away_is_named(settings: Settings, database_url: str):
    with serving(settings, Database(database_url, "redis://127.0.0.1:1/0")) as address:
        answer = httpx.get(f"{address}/readyz", trust_env=False)
    assert [error["where"] for error in answer.json()["errors"]] == ["broker"]


def test_a_schema_of_another_version_is_named(settings: Settings, servers, empty_database_url: str):
    with serving(settings, Database(empty_database_url, servers.broker_url)) as address:
        answer = httpx.get(f"{address}/readyz", trust_env=False)
        assert [error["where"] for error in answer.json()["errors"]] == ["schema"]
        assert migrations.head() in answer.json()["detail"]
        migrations.upgrade(empty_database_url)
        assert httpx.get(f"{address}/readyz", trust_env=False).status_code == 200
