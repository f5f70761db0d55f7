from __future__ import annotations

import os
import signal
import subprocess
import sys

from sqlalchemy import text

from store.leader import leader
from store.session import Database

_HOLD = """
import sys, time
from store.leader import leader
from store.session import Database
with leader(Database(sys.argv[1]), "reconciler") as lead:
    print(lead.held(), flush=True)
    time.sleep(60)
"""


def test_one_leads_until_it_resigns(database):
    with leader(database, "reconciler") as first, leader(database, "reconciler") as second:
        assert first.held()
        assert not second.held()
        assert first.held()
        first.resign()
        assert second.held()
        assert not first.held()


def test_a_lead_ends_with_its_block(database):
    with leader(database, "reconciler") as first:
        assert first.held()
    with leader(database, "reconciler") as second:
        assert second.held()


def test_different_keys_are_different_leads(database):
    with leader(database, "a") as first, leader(database, "b") as second:
        assert first.held()
        assert second.held()


def test_a_leader_whose_connection_broke_knows_it_lost_the_lead(database):
    with leader(database, "reconciler") as first, leader(database, "reconciler") as second:
        assert first.held()
        with database.transaction() as s:
            s.execute(
                text(
                    "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks "
                    "WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database "
                    "WHERE datname = current_database())"
                )
            )
        assert second.held()
        assert not first.held()


def test_nobody_leads_while_the_database_is_away():
    with leader(Database("postgresql+psycopg://x:x@127.0.0.1:1/x"), "reconciler") as lead:
        assert not lead.held()


def test_a_killed_leader_leaves_the_lead_to_another(database):
    process = subprocess.Popen([sys.executable, "-c", _HOLD, database.url], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "True\n"
        with leader(database, "reconciler") as second:
            assert not second.held()
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            assert any(second.held() for _ in range(1000))
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
