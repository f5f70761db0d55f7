"""`huarizo doctor` as a table and as JSON; a failed check is exit code 1."""

from __future__ import annotations

import json

import pytest

from huarizo.checks import Check
from huarizo.cli import doctor

FINE = Check("Python", "ok", "3.12.1")
SO_SO = Check("datasets", "warn", "none [here]", "set HUARIZO_DATASETS")
BROKEN = Check("database", "fail", "does not answer", "start it")


@pytest.mark.parametrize(("checks", "code"), [([FINE, SO_SO], 0), ([FINE, BROKEN, SO_SO], 1)])
def test_only_a_failure_is_exit_code_1(
    checks: list[Check], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "examine", lambda _settings: iter(checks))
    assert doctor.run(as_json=True) == code
    told = json.loads(capsys.readouterr().out)
    assert [check["status"] for check in told] == [check.status for check in checks]
    assert doctor.run(as_json=False) == code
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(checks)
    assert any("none [here]" in line and "set HUARIZO_DATASETS" in line for line in lines)
