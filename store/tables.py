"""The tables. The migrations make them; a test compares the two.

What a digest is taken over is `JSON`, kept letter by letter: `JSONB` would turn -0.0 into 0.0 and 1e16 into an integer.
Creation times come from `clock_timestamp()`, so that rows of one transaction keep their order.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSON, JSONB

from core.records import Device, StepKind
from core.states import JobState, StepState, TrialState

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

MODEL_STATES = ("registered", "ready", "failed")
ORIGINS = ("parent", "enqueued", "proposed", "adopted", "refined", "completed")


def _one_of(column: str, values: Iterable[str]) -> CheckConstraint:
    return CheckConstraint(f"{column} IN ({', '.join(repr(str(v)) for v in values)})", name=column)


def _verbatim(name: str, *, nullable: bool = False) -> Column[Any]:
    return Column(name, JSON(none_as_null=True), nullable=nullable)


def _jsonb(name: str, default: str | None = None) -> Column[Any]:
    given = text(f"'{default}'::jsonb") if default else None
    return Column(name, JSONB(none_as_null=True), nullable=default is None, server_default=given)


def _count(name: str, kind: type[Integer] = Integer) -> Column[Any]:
    return Column(name, kind, nullable=False, server_default=text("0"))


def _moment(name: str) -> Column[Any]:
    return Column(name, DateTime(timezone=True))


def _created_at() -> Column[Any]:
    return Column("created_at", DateTime(timezone=True), nullable=False, server_default=text("clock_timestamp()"))


models = Table(
    "models",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("ref", Text, nullable=False, index=True),
    Column("state", Text, nullable=False),
    Column("weights_digest", Text),
    _verbatim("header", nullable=True),
    _verbatim("failure", nullable=True),
    _created_at(),
    _one_of("state", MODEL_STATES),
    CheckConstraint("state <> 'ready' OR (header IS NOT NULL AND weights_digest IS NOT NULL)", name="ready"),
    Index(None, "created_at", "id"),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("state", Text, nullable=False),
    _verbatim("request"),
    Column("request_digest", Text, nullable=False),
    Column("idempotency_key", Text, unique=True),
    _jsonb("verdict"),
    _verbatim("failure", nullable=True),
    _jsonb("contents", "{}"),
    _jsonb("fingerprints", "{}"),
    _count("heldout_reads"),
    _count("items_scored", BigInteger),
    _created_at(),
    _moment("started_at"),
    _moment("finished_at"),
    _moment("paused_at"),
    Column("paused_seconds", Double, nullable=False, server_default=text("0")),
    _one_of("state", JobState),
    Index(None, "created_at", "id"),
    Index(None, "state", "created_at", "id"),
)

trials = Table(
    "trials",
    metadata,
    Column("id", Text, primary_key=True),
    Column("job_id", Text, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("optuna_number", Integer),
    Column("origin", Text, nullable=False),
    Column("label", Text, nullable=False),
    Column("state", Text, nullable=False),
    _verbatim("values", nullable=True),
    _verbatim("recipe"),
    _verbatim("resolved"),
    Column("recipe_digest", Text, nullable=False, index=True),
    _count("rung"),
    Column("target_items", Integer, nullable=False),
    _count("scored_items"),
    _jsonb("scores", "[]"),
    Column("macro", Double),
    _jsonb("heldout", "[]"),
    Column("macro_heldout", Double),
    Column("weights_digest", Text),
    _jsonb("provenance", "{}"),
    _verbatim("failure", nullable=True),
    _jsonb("heard", "[]"),
    Column("told", Boolean, nullable=False, server_default=text("false")),
    Column("seconds", Double, nullable=False, server_default=text("0")),
    _created_at(),
    _moment("finished_at"),
    _one_of("state", TrialState),
    _one_of("origin", ORIGINS),
    UniqueConstraint("job_id", "number"),
    UniqueConstraint("job_id", "optuna_number"),
    Index(None, "job_id", "state"),
    Index("ix_trials_best", "job_id", text("macro DESC NULLS LAST"), "number"),
)

_QUEUED, _RUNNING = text("state = 'queued'"), text("state = 'running'")

steps = Table(
    "steps",
    metadata,
    Column("id", Text, primary_key=True),
    Column("job_id", Text, ForeignKey("jobs.id", ondelete="CASCADE"), index=True),
    Column("trial_id", Text, ForeignKey("trials.id", ondelete="CASCADE"), index=True),
    Column("kind", Text, nullable=False),
    Column("device", Text, nullable=False),
    _jsonb("payload", "{}"),
    _count("priority"),
    Column("state", Text, nullable=False),
    Column("owner", Text),
    _count("fence", BigInteger),
    _moment("lease_until"),
    _count("attempts"),
    _count("infra_restarts"),
    _moment("not_before"),
    _moment("rung_at"),
    _jsonb("result"),
    _verbatim("failure", nullable=True),
    _created_at(),
    _moment("finished_at"),
    _one_of("state", StepState),
    _one_of("kind", StepKind),
    _one_of("device", Device),
    CheckConstraint("state <> 'running' OR (owner IS NOT NULL AND lease_until IS NOT NULL)", name="leased"),
    # The queue is read all the time and finished steps pile up, so it has indexes of its own.
    Index("ix_steps_queued", "device", "created_at", postgresql_where=_QUEUED),
    Index("ix_steps_queued_job", "job_id", postgresql_where=_QUEUED),
    Index("ix_steps_running", "job_id", postgresql_where=_RUNNING),
    Index("ix_steps_leases", "lease_until", postgresql_where=_RUNNING),
    Index("ix_steps_owners", "owner", postgresql_where=_RUNNING),
    Index(
        "uq_steps_running_advance",
        "job_id",
        unique=True,
        postgresql_where=text("kind = 'advance' AND state = 'running'"),
    ),
)

outcomes = Table(
    "outcomes",
    metadata,
    Column("recipe_digest", Text),
    Column("fingerprint", Text),
    Column("task", Text, nullable=False),
    Column("documents", Integer, nullable=False),
    Column("presence", LargeBinary, nullable=False),
    Column("correct", LargeBinary, nullable=False),
    Column("margins", LargeBinary, nullable=False),
    Column("writes", Integer, nullable=False),
    _created_at(),
    PrimaryKeyConstraint("recipe_digest", "fingerprint"),
    # Every document was written exactly once: the law of the torture tests, held by the database itself.
    CheckConstraint("writes = bit_count(presence)", name="written_once"),
)

artifacts = Table(
    "artifacts",
    metadata,
    Column("id", Text, primary_key=True),
    Column("job_id", Text, ForeignKey("jobs.id", ondelete="SET NULL"), index=True),
    Column("trial_id", Text, ForeignKey("trials.id", ondelete="SET NULL"), index=True),
    Column("kind", Text, nullable=False),
    Column("path", Text, nullable=False),
    Column("weights_digest", Text),
    _jsonb("files", "[]"),
    _count("bytes", BigInteger),
    _created_at(),
    Index(None, "created_at", "id"),
)

events = Table(
    "events",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("job_id", Text, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("kind", Text, nullable=False),
    _jsonb("payload", "{}"),
    _created_at(),
    Index(None, "job_id", "id"),
    Index(None, "job_id", "kind", "id"),
)

tasks = Table(
    "tasks",
    metadata,
    Column("name", Text),
    Column("content_digest", Text, index=True),
    Column("version", Text, nullable=False),
    _verbatim("content"),
    _count("heldout_reads"),
    _created_at(),
    Column("seen_at", DateTime(timezone=True), nullable=False, server_default=text("clock_timestamp()")),
    PrimaryKeyConstraint("name", "content_digest"),
)
