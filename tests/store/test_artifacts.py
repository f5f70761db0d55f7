from __future__ import annotations

import pytest
from sqlalchemy import delete

from core.errors import NotFoundError
from store import artifacts, tables
from tests.store.makers import new_job, new_trial

FILES = [{"name": "model.safetensors", "bytes": 7_000_000_000, "sha256": "ab"}]


def _create(s, job, trial, path="one"):
    return artifacts.create(
        s,
        job_id=job.id,
        trial_id=trial.id,
        kind="checkpoint",
        path=path,
        files=FILES,
        bytes=7_000_000_000,
        weights_digest="w",
    )


@pytest.fixture
def pair(database):
    with database.transaction() as s:
        job = new_job(s)
        return job, new_trial(s, job.id)


def test_an_artifact_comes_back_with_its_files(database, pair):
    with database.transaction() as s:
        made = _create(s, *pair)
    with database.reading() as s:
        kept = artifacts.get(s, made.id)
    assert kept == made
    assert (kept.files, kept.bytes, kept.kind) == (tuple(FILES), 7_000_000_000, "checkpoint")


def test_artifacts_of_a_job_are_listed_oldest_first_and_all_of_them_newest_first(database, pair):
    with database.transaction() as s:
        ids = [_create(s, *pair, path=path).id for path in "abc"]
        artifacts.create(s, job_id=None, trial_id=None, kind="report", path="r", files=[], bytes=0)
        assert [a.id for a in artifacts.of_job(s, pair[0].id)] == ids
        first = artifacts.page(s, 3)
        rest = artifacts.page(s, 3, first.next_cursor)
        assert [a.path for a in (*first.items, *rest.items)] == ["r", "c", "b", "a"]


def test_a_deleted_artifact_says_what_it_was(database, pair):
    with database.transaction() as s:
        made = _create(s, *pair)
        assert artifacts.delete(s, made.id) == made
        for act in (artifacts.get, artifacts.delete):
            with pytest.raises(NotFoundError):
                act(s, made.id)


def test_an_artifact_outlives_its_job(database, pair):
    with database.transaction() as s:
        made = _create(s, *pair)
        s.execute(delete(tables.jobs))
        kept = artifacts.get(s, made.id)
    assert (kept.job_id, kept.trial_id, kept.path) == (None, None, "one")
