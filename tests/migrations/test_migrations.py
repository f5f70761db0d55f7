"""The migrations make exactly the tables the code knows, and can be undone."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest
from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.exc import OperationalError

import migrations
from store.tables import metadata

_CATALOG = {
    "columns": """SELECT table_name, column_name, data_type, is_nullable, column_default, is_identity
        FROM information_schema.columns WHERE table_schema = 'public'""",
    "constraints": """SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)
        FROM pg_constraint WHERE connamespace = 'public'::regnamespace""",
    "indexes": "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
}


def _query(url: str, statement: str) -> list[tuple[object, ...]]:
    with create_engine(url, poolclass=NullPool).connect() as connection:
        return [tuple(row) for row in connection.execute(text(statement))]


def _catalog(url: str) -> dict[str, set[tuple[object, ...]]]:
    return {
        name: {row for row in _query(url, statement) if "alembic_version" not in str(row)}
        for name, statement in _CATALOG.items()
    }


def test_the_migrations_make_the_tables_the_code_knows(database_url):
    assert migrations.check(database_url) == []


def test_a_column_that_no_migration_made_is_reported(own_database_url):
    _execute(own_database_url, "ALTER TABLE jobs DROP COLUMN verdict")
    (difference,) = migrations.check(own_database_url)
    assert "add_column" in difference
    assert "verdict" in difference


def test_defaults_checks_and_partial_indexes_agree_with_the_metadata_too(database_url, empty_database_url):
    engine = create_engine(empty_database_url, poolclass=NullPool)
    metadata.create_all(engine)
    migrated, created = _catalog(database_url), _catalog(empty_database_url)
    assert len(migrated["columns"]) > 80
    assert migrated == created


def test_up_down_and_up_again_leaves_nothing_behind_and_ends_at_the_head(empty_database_url):
    assert migrations.current(empty_database_url) is None
    migrations.upgrade(empty_database_url)
    assert migrations.current(empty_database_url) == migrations.head()
    first = _catalog(empty_database_url)
    migrations.downgrade(empty_database_url, "base")
    assert migrations.current(empty_database_url) is None
    assert _query(empty_database_url, "SELECT nspname FROM pg_namespace WHERE nspname = 'optuna'") == []
    assert _catalog(empty_database_url) == {"columns": set(), "constraints": set(), "indexes": set()}
    migrations.upgrade(empty_database_url)
    assert migrations.check(empty_database_url) == []
    assert _catalog(empty_database_url) == first


def test_upgrading_a_database_at_its_head_changes_nothing(database_url):
    before = _catalog(database_url)
    migrations.upgrade(database_url)
    assert _catalog(database_url) == before


def test_two_processes_may_upgrade_at_once(empty_database_url):
    errors: list[BaseException] = []

    def upgrade() -> None:
        code = "import sys, migrations; migrations.upgrade(sys.argv[1])"
        done = subprocess.run([sys.executable, "-c", code, empty_database_url], capture_output=True, text=True)
        if done.returncode:
            errors.append(RuntimeError(done.stderr))

    threads = [threading.Thread(target=upgrade) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert migrations.current(empty_database_url) == migrations.head()


def test_a_migration_gives_up_rather_than_hold_up_every_query(own_database_url):
    migrations.downgrade(own_database_url, "base")
    migrations.upgrade(own_database_url, "0001")
    with create_engine(own_database_url, poolclass=NullPool).begin() as connection:
        connection.execute(text("LOCK TABLE steps IN ACCESS SHARE MODE"))
        with pytest.raises(OperationalError, match="lock timeout"):
            migrations.downgrade(own_database_url, "base")
    assert migrations.current(own_database_url) == "0001"


def test_optuna_finds_its_tables_in_their_own_schema(database_url):
    import optuna

    storage = optuna.storages.RDBStorage(f"{database_url}?options=-csearch_path=optuna", skip_table_creation=True)
    study = optuna.create_study(storage=storage, study_name="one")
    study.tell(study.ask(), 0.5)
    storage.engine.dispose()
    assert _query(database_url, "SELECT study_name FROM optuna.studies") == [("one",)]
    assert _query(database_url, "SELECT to_regclass('public.studies')::text") == [(None,)]


def _execute(url: str, statement: str) -> None:
    with create_engine(url, poolclass=NullPool).begin() as connection:
        connection.execute(text(statement))
