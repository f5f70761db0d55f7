from __future__ import annotations

import random

import pytest
from sqlalchemy import text, update
from sqlalchemy.exc import IntegrityError

from core.errors import OutcomeConflictError
from core.outcomes import Outcomes
from store import outcomes, tables
from tests.store.makers import at_once

DOCUMENTS = 100


def _some(numbers, margin=0.5):
    return Outcomes.of((n, n % 2, margin * n) for n in numbers)


def _commit(database, found, *, digest="r", fingerprint="f", task="arc", documents=DOCUMENTS):
    with database.transaction() as s:
        outcomes.commit(
            s, recipe_digest=digest, fingerprint=fingerprint, task=task, documents=documents, outcomes=found
        )


def _load(database, digest="r", fingerprint="f"):
    with database.reading() as s:
        return outcomes.load(s, digest, fingerprint)


def _writes(database):
    with database.reading() as s:
        return s.execute(text("SELECT sum(writes), sum(bit_count(presence)) FROM outcomes")).one()


def test_what_was_never_scored_is_empty(database):
    assert _load(database) == Outcomes.empty()


def test_results_come_back_and_add_up(database):
    _commit(database, _some([3, 99, 0]))
    _commit(database, _some([50, 4]))
    assert _load(database) == _some([0, 3, 4, 50, 99])
    assert _writes(database) == (5, 5)


def test_results_are_kept_by_recipe_and_fingerprint(database):
    _commit(database, _some([1]))
    _commit(database, _some([1, 2]), digest="other")
    _commit(database, _some([1, 2, 3]), fingerprint="other")
    with database.reading() as s:
        found = outcomes.load_many(s, [("r", "f"), ("other", "f"), ("r", "other"), ("no", "no")])
    assert {key: len(value) for key, value in found.items()} == {
        ("r", "f"): 1,
        ("other", "f"): 2,
        ("r", "other"): 3,
        ("no", "no"): 0,
    }


def test_nothing_is_loaded_for_no_keys(database):
    with database.reading() as s:
        assert outcomes.load_many(s, []) == {}


def test_no_results_make_no_row(database):
    _commit(database, Outcomes.empty())
    assert _writes(database) == (None, None)


def test_a_document_is_never_scored_twice_and_a_conflict_writes_nothing(database):
    _commit(database, _some([1, 2]))
    with pytest.raises(OutcomeConflictError, match=r"\[2\]"):
        _commit(database, _some([2, 3], margin=9))
    assert _load(database) == _some([1, 2])


def test_documents_beyond_the_task_are_refused(database):
    with pytest.raises(ValueError, match="0 to 99"):
        _commit(database, _some([100]))


def test_a_fingerprint_stands_for_one_task(database):
    _commit(database, _some([1]))
    with pytest.raises(OutcomeConflictError, match="'arc'"):
        _commit(database, _some([2]), task="hellaswag")
    with pytest.raises(OutcomeConflictError, match="101"):
        _commit(database, _some([2]), documents=101)


def test_writers_of_disjoint_parts_at_once_lose_nothing(database):
    numbers = list(range(DOCUMENTS))
    random.Random(5).shuffle(numbers)
    at_once(lambda n: _commit(database, _some(numbers[n::8])), 8)
    assert _load(database) == _some(range(DOCUMENTS))
    assert _writes(database) == (DOCUMENTS, DOCUMENTS)


def test_of_writers_of_the_same_part_at_once_exactly_one_wins(database):
    def write(number: int) -> bool:
        try:
            _commit(database, _some([7, 8], margin=number + 1))
        except OutcomeConflictError:
            return False
        return True

    assert at_once(write, 6).count(True) == 1
    assert _writes(database) == (2, 2)


def test_the_database_itself_refuses_a_count_of_writes_that_is_not_the_documents_present(database):
    _commit(database, _some([1, 2]))
    with database.transaction() as s, pytest.raises(IntegrityError, match="written_once"):
        s.execute(update(tables.outcomes).values(writes=3))


def test_ten_thousand_documents_fit(database):
    found = Outcomes.of((n, 1, float(n)) for n in range(10_042))
    _commit(database, found, documents=10_042)
    assert _load(database) == found


def test_completing_adds_only_what_is_missing_and_says_what_that_was(database):
    _commit(database, _some([1, 2, 3]))
    with database.transaction() as s:
        added = outcomes.complete(
            s,
            recipe_digest="r",
            fingerprint="f",
            task="arc",
            documents=DOCUMENTS,
            outcomes=_some([2, 3, 4], margin=9.0),
        )
    assert added == _some([4], margin=9.0)
    # What was there first stands.
    assert _load(database) == Outcomes.of([*_some([1, 2, 3]).items(), *added.items()])
    assert _writes(database) == (4, 4)


def test_of_writers_that_complete_one_row_at_once_each_document_is_added_by_one(database):
    def complete(number):
        with database.transaction() as s:
            return outcomes.complete(
                s, recipe_digest="r", fingerprint="f", task="arc", documents=DOCUMENTS, outcomes=_some(range(40))
            )

    added = at_once(complete, 4)
    assert sorted(len(found) for found in added) == [0, 0, 0, 40]
    assert _writes(database) == (40, 40)
