import json

from benchmarks.claims import Report, run


def test_a_goal_is_held_against_what_was_measured_and_not_against_its_rounding(tmp_path, capsys):
    def measure(report: Report) -> None:
        report.claim("speed", 2.69996, "times", 2.7)
        report.claim("memory", 0.9999, "GB", 1.0, "lower")

    assert run("speed", measure, ["--json", str(tmp_path / "found.json")]) == 1
    found = json.loads((tmp_path / "found.json").read_text())
    assert [claim["value"] for claim in found["claims"]] == [2.69996, 0.9999]
    told = capsys.readouterr()
    assert "MISSED" in told.out.splitlines()[0] and "reached" in told.out.splitlines()[1]
    assert told.err.count("missed:") == 1
