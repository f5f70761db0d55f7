from __future__ import annotations

import httpx

from core.catalog import catalog


def test_the_catalogue_lists_every_method_and_the_tasks_of_configured_folders(client: httpx.Client, folders):
    (folders["tasks"] / "alpacas.yaml").write_text("task: alpacas\n")
    found = client.get("/v1/catalog").json()
    assert [method["name"] for method in found["methods"]] == [method.name for method in catalog().methods]
    assert {"alpacas", "arc_easy"} <= set(found["tasks"]) and found["tasks"] == sorted(found["tasks"])
