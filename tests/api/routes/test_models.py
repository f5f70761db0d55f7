from __future__ import annotations

import httpx
import pytest

from core.records import Failure, StepKind
from store import models, steps, tables
from store.session import Database
from tests.api import seeds


def inspections(database: Database) -> list[str]:
    with database.reading() as s:
        rows = s.execute(tables.steps.select().order_by(tables.steps.c.created_at)).all()
        return [steps.get(s, row.id).payload["model_id"] for row in rows if row.kind == StepKind.INSPECT_MODEL]


def test_a_model_is_registered_and_its_inspection_ordered_once(client: httpx.Client, database: Database):
    posted = {"name": "base", "ref": "local:nursery/base"}
    answer = client.post("/v1/models", json=posted)
    assert answer.status_code == 202
    found = answer.json()
    assert answer.headers["location"] == f"/v1/models/{found['id']}"
    assert (found["state"], found["header"]) == ("registered", None)
    assert client.post("/v1/models", json=posted).json()["id"] == found["id"]
    assert inspections(database) == [found["id"]]
    other = client.post("/v1/models", json={"name": "base", "ref": "local:nursery/maths"})
    assert (other.status_code, other.json()["code"]) == (409, "conflict")


def test_a_failed_model_that_is_posted_again_is_inspected_again(client: httpx.Client, database: Database):
    posted = {"name": "base", "ref": "local:nursery/base"}
    first = client.post("/v1/models", json=posted).json()["id"]
    with database.transaction() as s:
        models.mark_failed(
            s, first, Failure(code="truncated_checkpoint", message="/data/models/x.safetensors is short")
        )
    assert client.get(f"/v1/models/{first}").json()["failure"]["message"] == "…/x.safetensors is short"
    client.post("/v1/models", json=posted)
    assert inspections(database) == [first, first]


def test_an_inspected_model_tells_its_header_and_is_found_by_name(client: httpx.Client, database: Database):
    with database.transaction() as s:
        seeds.ready_model(s, "base")
    found = client.get("/v1/models/base").json()
    assert found["weights_digest"] == seeds.digest("base")
    # 64x32 twice, 32, and 8 layers of 32x32 + 64x32.
    assert found["header"]["parameters"] == 2 * 2048 + 32 + 8 * (1024 + 2048)
    assert (found["header"]["layers"], found["header"]["dtypes"]) == (8, ["BF16"])
    assert client.get(f"/v1/models/{found['id']}").json() == found
    assert [item["name"] for item in client.get("/v1/models").json()["items"]] == ["base"]
    assert client.get("/v1/models/nobody").status_code == 404


@pytest.mark.parametrize(
    ("ref", "code"),
    [
        ("local:/etc", "path_not_allowed"),
        ("local:../..", "path_not_allowed"),
        ("local:nursery/gone", "missing_checkpoint"),
        ("hub:org/model/extra", "invalid_input"),
        ("base", "invalid_input"),
        ("file:///etc/passwd", "invalid_input"),
        ("", "invalid_input"),
    ],
)
def test_a_reference_must_be_allowed_and_lead_somewhere(library, ref, code):
    answer = library[0].post("/v1/models", json={"name": "m", "ref": ref})
    assert (answer.status_code, answer.json()["code"]) == (422, code)


def test_hub_ids_must_match_the_allow_list(database: Database, folders):
    from tests.api.conftest import serving, settings_of

    with serving(settings_of(folders, hub_allow=r"^ours/.*$"), database) as address:
        wanted = {"name": "m", "ref": "hub:theirs/model@abc"}
        refused = httpx.post(f"{address}/v1/models", json=wanted, trust_env=False)
        assert (refused.status_code, refused.json()["code"]) == (422, "path_not_allowed")
        wanted["ref"] = "hub:ours/model@abc"
        assert httpx.post(f"{address}/v1/models", json=wanted, trust_env=False).status_code == 202


@pytest.mark.parametrize("name", ["", "a/b", ".hidden", "a b", "x" * 101, "<b>"])
def test_a_name_is_one_plain_word(library, name):
    answer = library[0].post("/v1/models", json={"name": name, "ref": "local:nursery/base"})
    assert (answer.status_code, answer.json()["where"]) == (422, "name")


def test_a_hub_model_that_was_pinned_meanwhile_is_registered_again_without_conflict(
    client: httpx.Client, database: Database
):
    posted = {"name": "far", "ref": "hub:herd/m"}
    first = client.post("/v1/models", json=posted).json()
    with database.transaction() as s:
        header = seeds.ready_model(s, "base").header
        models.mark_ready(s, first["id"], header, "w", ref="hub:herd/m@" + "0" * 40)
    again = client.post("/v1/models", json=posted)
    assert (again.status_code, again.json()["id"], again.json()["ref"]) == (202, first["id"], "hub:herd/m@" + "0" * 40)
    assert inspections(database) == [first["id"]]
    other = client.post("/v1/models", json={"name": "far", "ref": "hub:herd/n"})
    assert (other.status_code, other.json()["code"]) == (409, "conflict")


def test_the_name_of_a_form_of_value_is_no_name_of_a_model(client: httpx.Client):
    answer = client.post("/v1/models", json={"name": "groups", "ref": "local:nursery/base"})
    assert (answer.status_code, answer.json()["code"], answer.json()["where"]) == (422, "invalid_input", "name")
    assert "reserved" in answer.json()["detail"]
