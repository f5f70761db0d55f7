from __future__ import annotations

import hashlib
import io
import tarfile
from urllib.parse import quote

import httpx
import pytest

from core.records import ArtifactRecord
from store import artifacts
from store.session import Database
from tests.api import seeds
from tests.api.conftest import serving, settings_of


@pytest.fixture
def kept(database: Database, folders) -> ArtifactRecord:
    with database.transaction() as s:
        return seeds.checkpoint(s, folders["artifacts"])


def test_an_artifact_lists_its_files_and_not_where_they_lie(client: httpx.Client, kept, folders):
    found = client.get(f"/v1/artifacts/{kept.id}").json()
    assert {file["path"]: file["sha256"] for file in found["files"]} == {
        name: hashlib.sha256(data).hexdigest() for name, data in seeds.FILES.items()
    }
    assert "path" not in found and str(folders["artifacts"]) not in client.get("/v1/artifacts").text
    assert [item["id"] for item in client.get("/v1/artifacts").json()["items"]] == [kept.id]


def test_a_file_arrives_whole_or_from_where_it_broke_off(client: httpx.Client, kept):
    address, data = f"/v1/artifacts/{kept.id}/files/model.safetensors", seeds.FILES["model.safetensors"]
    whole = client.get(address)
    assert whole.content == data and whole.headers["accept-ranges"] == "bytes"
    assert whole.headers["x-content-sha256"] == hashlib.sha256(data).hexdigest()
    assert whole.headers["content-disposition"].startswith("attachment")
    rest = client.get(address, headers={"range": "bytes=1000-", "if-range": whole.headers["etag"]})
    assert (rest.status_code, rest.content) == (206, data[1000:])
    assert rest.headers["content-range"] == f"bytes 1000-{len(data) - 1}/{len(data)}"
    assert client.get(address, headers={"range": f"bytes={len(data)}-"}).status_code == 416


@pytest.mark.parametrize(
    "path",
    [
        "../../models",
        "..%2F..%2F..%2F..%2Fetc%2Fpasswd",
        "%2e%2e/%2e%2e/etc/passwd",
        "/etc/passwd",
        "%2Fetc%2Fpasswd",
        "gone.bin",
        "",
        ".",
    ],
)
def test_no_file_outside_the_manifest_is_ever_served(library, path):
    client = library[0]
    (kept,) = client.get("/v1/artifacts").json()["items"]
    answer = client.get(f"/v1/artifacts/{kept['id']}/files/{path}")
    assert answer.status_code in (404, 307) and "root:" not in answer.text


def test_even_a_manifest_that_was_tampered_with_opens_nothing_outside(
    client: httpx.Client, database, folders, tmp_path
):
    (tmp_path / "outside").write_text("secret")
    (folders["artifacts"] / "c").mkdir()
    (folders["artifacts"] / "c/link").symlink_to(tmp_path / "outside")
    entries = [{"path": p, "bytes": 6, "sha256": ""} for p in ("../../outside", str(tmp_path / "outside"), "link")]
    with database.transaction() as s:
        inside = artifacts.create(s, job_id=None, trial_id=None, kind="checkpoint", path="c", files=entries, bytes=6)
        whole = [{"path": "outside", "bytes": 6, "sha256": ""}]
        above = artifacts.create(s, job_id=None, trial_id=None, kind="checkpoint", path="..", files=whole, bytes=6)
    for record, name in [(inside, entry["path"]) for entry in entries] + [(above, "outside")]:
        answer = client.get(f"/v1/artifacts/{record.id}/files/{quote(name, safe='')}")
        assert answer.status_code == 404 and answer.text != "secret"
    assert client.get(f"/v1/artifacts/{above.id}/download").status_code == 404


def test_a_download_is_a_tar_of_the_length_it_says(client: httpx.Client, kept):
    answer = client.get(f"/v1/artifacts/{kept.id}/download")
    assert int(answer.headers["content-length"]) == len(answer.content)
    with tarfile.open(fileobj=io.BytesIO(answer.content), mode="r:") as archive:
        found = {member.name: archive.extractfile(member).read() for member in archive.getmembers()}
    assert found == {f"{kept.id}/{name}": data for name, data in seeds.FILES.items()}
    assert client.get(f"/v1/artifacts/{kept.id}/download").content == answer.content


def test_a_file_that_is_gone_is_not_found(client: httpx.Client, kept, folders):
    (folders["artifacts"] / kept.path / "config.json").unlink()
    for address in ("files/config.json", "download"):
        answer = client.get(f"/v1/artifacts/{kept.id}/{address}")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_without_an_artifact_folder_the_service_says_what_to_set(database: Database, folders, kept, monkeypatch):
    for name in ("HUARIZO_ARTIFACTS", "HUARIZO_HOME"):
        monkeypatch.delenv(name, raising=False)
    settings = settings_of(folders).model_copy(update={"artifacts": None})
    with serving(settings, database) as address:
        answer = httpx.get(f"{address}/v1/artifacts/{kept.id}/files/config.json", trust_env=False)
    assert answer.status_code == 503 and "HUARIZO_ARTIFACTS" in answer.json()["detail"]
