"""Results that are measured part by part."""

import json

from benchmarks import search
from benchmarks.parts import update

ORDER = ("first", "second")


def run(value, date="2026-01-01", note="n"):
    claim = {"name": "x", "value": value, "unit": "s", "goal": None, "better": "lower"}
    about = {"date": date, "command": f"c {value}", "commit": f"k{value}", "machine": {"cores": value}, "seconds": 1.0}
    skipped = {"name": "y", "goal": 1.0, "reason": "slow"}
    return {**about, "claims": [claim], "not_run": [skipped], "notes": [note]}


def test_a_part_replaces_its_own_figures_and_no_others(tmp_path):
    file = tmp_path / "results" / "search.json"
    update(file, "second", run(2), ORDER)
    update(file, "first", run(1, date="2026-01-02"), ORDER)
    update(file, "second", run(3, date="2026-01-01", note="again"), ORDER)
    kept = json.loads(file.read_text())
    assert [(claim["part"], claim["value"]) for claim in kept["claims"]] == [("first", 1), ("second", 3)]
    assert [entry["part"] for entry in kept["not_run"]] == ["first", "second"]
    assert kept["notes"] == {"first": ["n"], "second": ["again"]}
    assert kept["parts"]["second"] == {
        "date": "2026-01-01", "command": "c 3", "commit": "k3", "machine": {"cores": 3}, "seconds": 1.0
    }  # fmt: skip
    # At the top stands what was measured last.
    assert (kept["commit"], kept["machine"]) == ("k1", {"cores": 1})


def test_parts_that_are_asked_for_are_measured_and_kept_with_their_commands(tmp_path, monkeypatch):
    measured = []
    for part in search.PARTS:
        monkeypatch.setitem(search.PARTS, part, lambda report, part=part: measured.append((part, report.quick)))
    file = tmp_path / "search.json"
    assert search.main(["--quick", "--only", "null", "replays", "--json", str(file)]) == 0
    assert measured == [("null", True), ("replays", True)]
    kept = json.loads(file.read_text())
    assert list(kept["parts"]) == ["replays", "null"]
    assert kept["parts"]["null"]["command"] == "python -m benchmarks.search --quick --only null"
