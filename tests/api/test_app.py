from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from api.app import app_from_env, create_app
from core.errors import ServiceUnavailableError
from core.settings import Settings
from store.session import Database
from tests.api import seeds
from tests.api.conftest import serving

ROOT = Path(__file__).parents[2]


def test_the_api_loads_neither_torch_nor_optuna_nor_transformers():
    code = (
        "import sys, api.app, api.__main__; from core.settings import Settings; from store.session import Database;"
        "api.app.create_app(Settings(), Database('postgresql+psycopg://x')).openapi();"
        "print(sorted({'torch', 'optuna', 'transformers', 'lm_eval', 'datasets', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_the_package_imports_only_the_ground_and_the_store():
    import ast

    allowed = {
        "api",
        "core",
        "store",
        "migrations",
        "fastapi",
        "starlette",
        "pydantic",
        "jinja2",
        "markupsafe",
        "uvicorn",
        "yaml",
    }
    for path in (ROOT / "api").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            tops = {name.partition(".")[0] for name in names}
            assert tops <= allowed | sys.stdlib_module_names, path


class _BrokenCommit(Database):
    """A database whose commits fail."""

    @contextmanager
    def transaction(self):
        with super().transaction() as s:
            yield s
            raise ServiceUnavailableError("the commit was lost: try again")


def test_nobody_is_told_of_a_job_that_was_not_committed(settings: Settings, database: Database):
    with database.transaction() as s:
        for name in seeds.PARENTS:
            seeds.ready_model(s, name)
    with serving(settings, _BrokenCommit(database.url)) as address:
        answer = httpx.post(f"{address}/v1/jobs", json=seeds.body(), trust_env=False)
        assert answer.status_code == 503
        assert "location" not in answer.headers
        assert httpx.get(f"{address}/v1/jobs", trust_env=False).json()["items"] == []


def test_without_a_database_it_says_what_to_set(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("HUARIZO_DATABASE_URL", raising=False)
    with pytest.raises(ServiceUnavailableError, match="HUARIZO_DATABASE_URL"):
        app_from_env()


def test_the_module_serves_what_the_environment_says_and_leaves_when_told(database_url: str, tmp_path: Path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    environment = os.environ | {
        "HUARIZO_DATABASE_URL": database_url,
        "HUARIZO_PORT": str(port),
        "HUARIZO_HOME": str(tmp_path),
    }
    log = (tmp_path / "log").open("w+")
    process = subprocess.Popen([sys.executable, "-m", "api"], cwd=ROOT, env=environment, stderr=log)
    try:
        assert _answers(f"http://127.0.0.1:{port}/healthz", process)
    finally:
        process.terminate()
        assert process.wait(10) in (0, -15)
    lines = (tmp_path / "log").read_text().splitlines()
    assert lines and all(line.startswith('{"time": ') for line in lines)


def _answers(url: str, process: subprocess.Popen[bytes], seconds: float = 40) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        try:
            return httpx.get(url, trust_env=False).status_code == 200
        except httpx.TransportError:
            time.sleep(0.1)
    return False


def test_the_document_tells_every_route_its_problems_and_an_example(settings: Settings):
    document = create_app(settings, Database("postgresql+psycopg://x")).openapi()
    text = str(document)
    assert "HTTPValidationError" not in text
    assert document["components"]["schemas"]["Problem"]["examples"]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert operation.get("summary") and operation.get("description"), (method, path)
            for status, response in operation["responses"].items():
                if status >= "400":
                    assert list(response["content"]) == ["application/problem+json"], (method, path, status)
            if path.startswith("/v1/jobs"):
                assert "503" in operation["responses"]
    posted = document["paths"]["/v1/jobs"]["post"]["requestBody"]["content"]["application/json"]
    assert posted["examples"]["search"]["value"]["kind"] == "search"
    assert not [path for path in document["paths"] if path.startswith(("/fragments", "/jobs"))]
