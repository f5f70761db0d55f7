"""The command line as a process: what it imports, how fast it starts, how it fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from huarizo.embedded.ports import free_port

REPOSITORY = Path(__file__).parents[3]
HEAVY = {"torch", "transformers", "optuna", "lm_eval", "datasets", "tokenizers", "celery", "sqlalchemy"}
VERBS = ("up", "worker", "migrate", "doctor", "submit", "watch", "jobs", "show", "trials", "cancel", "pause", "resume")
VERBS += ("export", "merge", "evaluate", "nursery", "version")


def huarizo(*words: str, home: Path, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HUARIZO_")}
    environment = {**kept, "HUARIZO_HOME": str(home), "COLUMNS": "200", **variables}
    return subprocess.run(
        [sys.executable, "-m", "huarizo", *words],
        cwd=REPOSITORY,
        env=environment,
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_line_imports_nothing_heavy_even_once_every_verb_is_loaded() -> None:
    code = (
        "import sys, pkgutil, importlib, huarizo.cli.app, huarizo.cli\n"
        "for module in pkgutil.iter_modules(huarizo.cli.__path__): importlib.import_module(f'huarizo.cli.{module.name}')\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    answer = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert HEAVY.isdisjoint(answer.stdout.split())


def test_help_lists_every_verb_and_comes_within_a_second_of_processor_time(tmp_path: Path) -> None:
    before = os.times()
    answer = huarizo("--help", home=tmp_path)
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    assert answer.returncode == 0
    assert all(f" {verb} " in answer.stdout for verb in VERBS)
    assert spent < 1.0


@pytest.mark.parametrize("words", [("nonsense",), ("show",), ("jobs", "--limit", "x"), ("worker",)])
def test_a_wrong_command_line_is_exit_code_2(words: tuple[str, ...], tmp_path: Path) -> None:
    answer = huarizo(*words, home=tmp_path)
    assert answer.returncode == 2
    assert "Traceback" not in answer.stderr


def test_an_error_is_one_line_on_stderr_and_exit_code_1(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    answer = huarizo("jobs", "--json", home=tmp_path, HUARIZO_API_URL=url)
    assert (answer.returncode, answer.stdout) == (1, "")
    assert answer.stderr.splitlines() == [
        f"huarizo: service_unavailable: no service answers at '{url}': start one with `huarizo up`, or set HUARIZO_API_URL"
    ]


def test_debug_shows_the_traceback_and_the_line(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    answer = huarizo("--debug", "--api-url", url, "show", "job_1", home=tmp_path)
    assert answer.returncode == 1
    assert "Traceback" in answer.stderr
    assert answer.stderr.splitlines()[-1].startswith("huarizo: service_unavailable: ")


def test_a_bad_job_is_refused_before_any_service_is_asked(tmp_path: Path) -> None:
    job = json.loads((REPOSITORY / "examples" / "nursery" / "job.json").read_text())
    job["space"]["families"][0]["methods"] = ["tyes"]
    answer = huarizo("submit", "-", home=tmp_path, stdin=json.dumps(job))
    assert answer.returncode == 1
    assert answer.stdout == ""
    (line,) = answer.stderr.splitlines()
    assert line.startswith("huarizo: unknown_method: ")
    assert "did you mean 'ties'" in line


def test_a_job_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    answer = huarizo("submit", str(tmp_path / "nothing.json"), home=tmp_path)
    assert answer.returncode == 1
    assert "nothing.json" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_versions_are_told_for_people_and_for_machines(tmp_path: Path) -> None:
    found = json.loads(huarizo("version", "--json", home=tmp_path).stdout)
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["lm-eval"] == "0.4.3"
    assert found["lm-eval"] in huarizo("version", home=tmp_path).stdout


def test_a_worker_without_a_database_names_the_way_out(tmp_path: Path) -> None:
    answer = huarizo("worker", "--role", "control", home=tmp_path)
    assert answer.returncode == 1
    assert "HUARIZO_DATABASE_URL" in answer.stderr


def test_a_worker_becomes_celery_in_the_same_process(tmp_path: Path) -> None:
    """The broker is not there, so the worker waits for it; by then the process is Celery's."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("HUARIZO_")},
        "HUARIZO_HOME": str(tmp_path),
        "HUARIZO_DATABASE_URL": "postgresql+psycopg://127.0.0.1:1/none",
        "HUARIZO_BROKER_URL": f"redis://127.0.0.1:{free_port()}/0",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "huarizo", "worker", "--role", "inspect"],
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 30
        words: list[str] = []
        while "celery" not in words and time.monotonic() < deadline:
            words = psutil.Process(process.pid).cmdline()
            time.sleep(0.05)
        assert words[words.index("--queues") + 1] == "inspect"
    finally:
        process.kill()
        process.wait()
