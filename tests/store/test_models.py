from __future__ import annotations

import pytest

from core.errors import ConflictError, NotFoundError
from core.model import Header, TensorInfo
from store import models
from tests.store.makers import FAILURE, at_once

HEADER = Header(
    model_type="llama",
    config='{"hidden_size":32}',
    layers=2,
    vocab_size=64,
    rope_theta=10000.0,
    tensors=(TensorInfo(name="lm_head.weight", dtype="BF16", shape=(64, 32)),),
)


def test_a_model_is_registered_once_per_name_and_reference(database):
    with database.transaction() as s:
        first = models.register(s, "a", "local:a")
        assert (first.state, first.header, first.weights_digest) == ("registered", None, None)
        assert models.register(s, "a", "local:a") == first
        with pytest.raises(ConflictError, match="'local:b'"):
            models.register(s, "a", "local:b")
        assert models.names(s) == {"a"}


def test_registering_at_once_makes_one_model(database):
    def register(_: int) -> str:
        with database.transaction() as s:
            return models.register(s, "a", "local:a").id

    assert len(set(at_once(register, 6))) == 1


def test_an_inspected_model_comes_back_with_its_header(database):
    with database.transaction() as s:
        made = models.register(s, "a", "local:a")
        ready = models.mark_ready(s, made.id, HEADER, "w")
        assert (ready.state, ready.header, ready.weights_digest) == ("ready", HEADER, "w")
        assert models.get(s, made.id) == models.by_name(s, "a") == ready
        assert models.mark_ready(s, made.id, HEADER, "w") == ready


def test_the_weights_of_a_model_never_change(database):
    with database.transaction() as s:
        made = models.register(s, "a", "local:a")
        models.mark_ready(s, made.id, HEADER, "w")
        with pytest.raises(ConflictError, match="never change"):
            models.mark_ready(s, made.id, HEADER, "other")
        with pytest.raises(ConflictError):
            models.mark_failed(s, made.id, FAILURE)
        assert models.get(s, made.id).weights_digest == "w"


def test_a_model_that_failed_can_be_inspected_again(database):
    with database.transaction() as s:
        made = models.register(s, "a", "local:a")
        failed = models.mark_failed(s, made.id, FAILURE)
        assert (failed.state, failed.failure) == ("failed", FAILURE)
        ready = models.mark_ready(s, made.id, HEADER, "w")
        assert (ready.state, ready.failure) == ("ready", None)


def test_unknown_models_are_not_found(database):
    with database.transaction() as s:
        assert models.by_name(s, "a") is None
        for act in (models.get, lambda s, id: models.mark_ready(s, id, HEADER, "w")):
            with pytest.raises(NotFoundError, match="no model 'model_0'"):
                act(s, "model_0")


def test_pages_of_models_run_from_the_newest(database):
    with database.transaction() as s:
        for name in "abc":
            models.register(s, name, f"local:{name}")
        first = models.page(s, 2)
        rest = models.page(s, 2, first.next_cursor)
        assert [m.name for m in (*first.items, *rest.items)] == ["c", "b", "a"]
        assert rest.next_cursor is None


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("asked", "again"),
    [
        ("hub:herd/m", "hub:herd/m"),
        ("hub:herd/m", f"hub:herd/m@{COMMIT}"),
        (f"hub:herd/m@{COMMIT}", "hub:herd/m"),
        ("hub:herd/m", f"hub:herd/m@{COMMIT[:8]}"),
    ],
)
def test_a_hub_model_is_itself_after_its_revision_was_pinned(database, asked, again):
    with database.transaction() as s:
        made = models.register(s, "a", asked)
        pinned = models.mark_ready(s, made.id, HEADER, "w", ref=f"hub:herd/m@{COMMIT}")
        assert models.register(s, "a", again) == pinned


def test_a_model_named_by_its_own_reference_is_itself_after_pinning(database):
    with database.transaction() as s:
        made = models.register(s, "hub:herd/m@main", "hub:herd/m@main")
        pinned = models.mark_ready(s, made.id, HEADER, "w", ref=f"hub:herd/m@{COMMIT}")
        assert models.register(s, "hub:herd/m@main", "hub:herd/m@main") == pinned


@pytest.mark.parametrize("other", ["hub:herd/n", "hub:herd/m@v2", f"hub:herd/m@{COMMIT[::-1]}", "local:herd/m"])
def test_another_hub_model_or_revision_is_not_taken_for_it(database, other):
    with database.transaction() as s:
        made = models.register(s, "a", "hub:herd/m")
        models.mark_ready(s, made.id, HEADER, "w", ref=f"hub:herd/m@{COMMIT}")
        with pytest.raises(ConflictError, match="take another name"):
            models.register(s, "a", other)
