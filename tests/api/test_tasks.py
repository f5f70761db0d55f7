from __future__ import annotations

import os
from pathlib import Path

from api.tasks import folder_tasks


def test_names_are_read_past_tags_whose_code_is_never_run(tmp_path: Path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/alpacas.yaml").write_text("task: alpacas\ndoc_to_text: !function utils.prompt\n")
    (tmp_path / "evil.yaml").write_text("task: evil\nx: !!python/object/apply:os.system ['touch owned']\n")
    (tmp_path / "group.yaml").write_text("group: animals\ntask:\n  - alpacas\n  - llamas\n")
    (tmp_path / "list.yaml").write_text("- 1\n- 2\n")
    (tmp_path / "broken.yaml").write_text("task: [unclosed\n")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "notes.txt").write_text("task: notes\n")
    assert sorted(folder_tasks([tmp_path])) == ["alpacas", "evil"]
    assert not (tmp_path / "owned").exists() and not Path("owned").exists()


def test_a_changed_file_is_read_again(tmp_path: Path):
    path = tmp_path / "one.yaml"
    path.write_text("task: first\n")
    assert list(folder_tasks([tmp_path])) == ["first"]
    path.write_text("task: second\n")
    os.utime(path, ns=(1, 1))
    assert list(folder_tasks([tmp_path])) == ["second"]


def test_a_folder_that_is_not_there_yet_has_no_tasks(tmp_path: Path):
    assert list(folder_tasks([tmp_path / "later"])) == []


def test_a_file_that_cannot_be_read_hides_no_other(tmp_path: Path, caplog):
    (tmp_path / "a_gone.yaml").symlink_to(tmp_path / "nowhere.yaml")
    (tmp_path / "b_loop.yaml").symlink_to(tmp_path / "b_loop.yaml")
    (tmp_path / "c_folder.yaml").mkdir()
    os.mkfifo(tmp_path / "d_pipe.yaml")
    (tmp_path / "e_latin.yaml").write_bytes("task: caf\xe9\n".encode("latin-1"))
    (tmp_path / "f_date.yaml").write_text("task: dated\nwhen: 2001-99-99\n")
    (tmp_path / "g_empty.yaml").write_text("task: odd\nn: !!int ''\n")
    (tmp_path / "h_deep.yaml").write_text("task: " + "[" * 5000 + "]" * 5000)
    (tmp_path / "z_good.yaml").write_text("task: good\n")
    assert list(folder_tasks([tmp_path])) == ["good"]
    for name in ("a_gone", "b_loop", "e_latin", "f_date", "g_empty", "h_deep"):
        assert f"{name}.yaml" in caplog.text


def test_a_link_that_comes_to_life_is_read(tmp_path: Path):
    (tmp_path / "link.yaml").symlink_to(tmp_path / "later.txt")
    assert list(folder_tasks([tmp_path])) == []
    (tmp_path / "later.txt").write_text("task: late\n")
    assert list(folder_tasks([tmp_path])) == ["late"]
