from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from core.errors import EmbeddedServerError
from huarizo.embedded import places
from huarizo.embedded.account import Account, account_for

OURSELVES = Account(os.geteuid(), os.getegid(), switched=False)


@pytest.fixture(autouse=True)
def no_settings(monkeypatch):
    for name in ("HUARIZO_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_two_clones_of_one_name_have_two_homes_and_one_clone_has_one(tmp_path):
    first, second, link = tmp_path / "a" / "huarizo", tmp_path / "b" / "huarizo", tmp_path / "link"
    first.mkdir(parents=True)
    second.mkdir(parents=True)
    link.symlink_to(first)
    assert places.data_home(first) != places.data_home(second)
    assert places.data_home(first) == places.data_home(link)
    assert places.data_home(first).name.startswith("huarizo-")


def test_the_default_home_belongs_to_the_checkout_this_code_runs_from():
    assert places.data_home() == places.data_home(Path(places.__file__).parents[2])


def test_huarizo_home_names_the_folder_outright(monkeypatch, tmp_path):
    monkeypatch.setenv("HUARIZO_HOME", str(tmp_path / "mine"))
    assert places.data_home(Path("/anywhere")) == tmp_path / "mine"


def test_root_uses_the_systems_state_folder(monkeypatch):
    monkeypatch.setattr(places.os, "geteuid", lambda: 0)
    monkeypatch.setattr(places.sys, "platform", "linux")
    assert places.data_home(Path("/srv/My Models!")).parent == Path("/var/lib/huarizo")
    assert places.data_home(Path("/srv/My Models!")).name.startswith("my-models-")


def test_others_use_their_xdg_data_home(monkeypatch, tmp_path):
    monkeypatch.setattr(places.os, "geteuid", lambda: 1000)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert places.data_home().parent == tmp_path / ".local" / "share" / "huarizo"
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "xdg"))
    assert places.data_home().parent == tmp_path / "xdg" / "huarizo"


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_only_folders_made_here_get_a_mode_and_the_umask_has_no_say(tmp_path, umask):
    tmp_path.chmod(0o705)
    before = os.umask(umask)
    try:
        places.make_folder(tmp_path / "one" / "two", 0o711)
    finally:
        os.umask(before)
    assert [mode(path) for path in (tmp_path, tmp_path / "one", tmp_path / "one" / "two")] == [0o705, 0o711, 0o711]


def test_a_home_of_ones_own_is_closed_to_others(tmp_path):
    places.open_home(tmp_path / "home", OURSELVES)
    assert mode(tmp_path / "home") == 0o700


def test_a_home_that_cannot_be_made_is_a_typed_failure(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EmbeddedServerError, match="HUARIZO_HOME"):
        places.open_home(tmp_path / "file" / "home", OURSELVES)


def test_a_home_behind_a_closed_door_is_a_typed_failure_that_names_the_door(open_folder, other_user):
    closed = open_folder / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(EmbeddedServerError, match=rf"'{closed}' \(mode 0700\) is closed to it.*HUARIZO_HOME"):
        places.open_home(closed / "home", account_for(closed / "home"))
    assert mode(closed) == 0o700


def test_a_socket_folder_moves_to_a_short_path_when_its_own_is_too_long(tmp_path):
    fits, long = tmp_path / "s", tmp_path / ("x" * 80) / "s"
    assert places.socket_folder(fits, OURSELVES) == fits
    short = places.socket_folder(long, OURSELVES)
    try:
        assert len(str(short / ".s.PGSQL.12345.lock")) < 104
        assert mode(short) == mode(fits) == 0o700
        assert not long.exists()
    finally:
        short.rmdir()
