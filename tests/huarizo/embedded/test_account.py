from __future__ import annotations

import os

import pytest

from core.errors import EmbeddedServerError
from huarizo.embedded import account
from huarizo.embedded.account import account_for


def test_an_ordinary_user_runs_the_servers_itself(monkeypatch, tmp_path):
    monkeypatch.setattr(account.os, "geteuid", lambda: 1234)
    assert account_for(tmp_path).uid == 1234
    assert not account_for(tmp_path).switched


def test_root_runs_them_as_nobody_or_as_the_owner_of_data_already_there(other_user, tmp_path):
    assert account_for(tmp_path / "absent").uid == other_user.pw_uid
    assert account_for(tmp_path).uid == other_user.pw_uid  # root's own folder cannot be kept: PostgreSQL refuses root
    os.chown(tmp_path, 4321, 4322)
    assert (account_for(tmp_path).uid, account_for(tmp_path).gid) == (4321, 4322)


def test_root_without_an_unprivileged_user_is_a_typed_failure(monkeypatch, tmp_path):
    monkeypatch.setattr(account.os, "geteuid", lambda: 0)
    monkeypatch.setattr(account, "UNPRIVILEGED", "nobody-of-this-name")
    with pytest.raises(EmbeddedServerError, match="ordinary user"):
        account_for(tmp_path / "absent")


def test_what_another_user_can_reach_is_asked_of_the_kernel(other_user, open_folder):
    closed = open_folder / "closed"
    closed.mkdir(mode=0o700)
    for folder in (open_folder, closed):
        (folder / "program").write_text("")
        (folder / "program").chmod(0o755)
    nobody = account_for(open_folder / "absent")
    assert nobody.can_read([open_folder / "program"])
    assert nobody.can_execute([open_folder / "program"])
    assert not nobody.can_read([open_folder / "program", closed / "program"])
    assert not nobody.can_execute([closed])
    (open_folder / "program").chmod(0o700)
    assert not nobody.can_execute([open_folder / "program"])
