"""Models, jobs, trials, steps, outcomes, artifacts, events and tasks.

Revision: 0001, the first
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def one_of(column: str, *values: str) -> str:
    return f"{column} IN ({', '.join(repr(value) for value in values)})"


def upgrade() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("request", postgresql.JSON(), nullable=False),
        sa.Column("request_digest", sa.Text(), nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("verdict", postgresql.JSONB(), nullable=True),
        sa.Column("failure", postgresql.JSON(), nullable=True),
        sa.Column("contents", postgresql.JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.Column("fingerprints", postgresql.JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.Column("heldout_reads", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("items_scored", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("paused_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("paused_seconds", sa.Double(), server_default=sa.text("0"), nullable=False),
        sa.CheckConstraint(
            one_of(
                "state",
                "queued",
                "preparing",
                "running",
                "paused",
                "confirming",
                "exporting",
                "succeeded",
                "failed",
                "cancelled",
            ),
            name=op.f("ck_jobs_state"),
        ),
        sa.PrimaryKeyConstraint("id", name="pk_jobs"),
        sa.UniqueConstraint("idempotency_key", name="uq_jobs_idempotency_key"),
    )
    op.create_index("ix_jobs_created_at_id", "jobs", ["created_at", "id"])
    op.create_index("ix_jobs_state_created_at_id", "jobs", ["state", "created_at", "id"])
    op.create_table(
        "models",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("ref", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("weights_digest", sa.Text(), nullable=True),
        sa.Column("header", postgresql.JSON(), nullable=True),
        sa.Column("failure", postgresql.JSON(), nullable=True),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.CheckConstraint(
            "state <> 'ready' OR (header IS NOT NULL AND weights_digest IS NOT NULL)", name=op.f("ck_models_ready")
        ),
        sa.CheckConstraint(one_of("state", "registered", "ready", "failed"), name=op.f("ck_models_state")),
        sa.PrimaryKeyConstraint("id", name="pk_models"),
        sa.UniqueConstraint("name", name="uq_models_name"),
    )
    op.create_index("ix_models_created_at_id", "models", ["created_at", "id"])
    op.create_index("ix_models_ref", "models", ["ref"])
    op.create_table(
        "outcomes",
        sa.Column("recipe_digest", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("documents", sa.Integer(), nullable=False),
        sa.Column("presence", sa.LargeBinary(), nullable=False),
        sa.Column("correct", sa.LargeBinary(), nullable=False),
        sa.Column("margins", sa.LargeBinary(), nullable=False),
        sa.Column("writes", sa.Integer(), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.CheckConstraint("writes = bit_count(presence)", name=op.f("ck_outcomes_written_once")),
        sa.PrimaryKeyConstraint("recipe_digest", "fingerprint", name="pk_outcomes"),
    )
    op.create_table(
        "tasks",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("content_digest", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("content", postgresql.JSON(), nullable=False),
        sa.Column("heldout_reads", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("seen_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.PrimaryKeyConstraint("name", "content_digest", name="pk_tasks"),
    )
    op.create_index("ix_tasks_content_digest", "tasks", ["content_digest"])
    op.create_table(
        "events",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("payload", postgresql.JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_events_job_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_events"),
    )
    op.create_index("ix_events_job_id_id", "events", ["job_id", "id"])
    op.create_table(
        "trials",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("optuna_number", sa.Integer(), nullable=True),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("values", postgresql.JSON(), nullable=True),
        sa.Column("recipe", postgresql.JSON(), nullable=False),
        sa.Column("resolved", postgresql.JSON(), nullable=False),
        sa.Column("recipe_digest", sa.Text(), nullable=False),
        sa.Column("rung", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("target_items", sa.Integer(), nullable=False),
        sa.Column("scored_items", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("scores", postgresql.JSONB(), server_default=sa.text("'[]'::jsonb"), nullable=False),
        sa.Column("macro", sa.Double(), nullable=True),
        sa.Column("heldout", postgresql.JSONB(), server_default=sa.text("'[]'::jsonb"), nullable=False),
        sa.Column("macro_heldout", sa.Double(), nullable=True),
        sa.Column("weights_digest", sa.Text(), nullable=True),
        sa.Column("provenance", postgresql.JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.Column("failure", postgresql.JSON(), nullable=True),
        sa.Column("told", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("seconds", sa.Double(), server_default=sa.text("0"), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            one_of("origin", "parent", "enqueued", "proposed", "completed"), name=op.f("ck_trials_origin")
        ),
        sa.CheckConstraint(
            one_of("state", "queued", "running", "waiting", "scored", "stopped", "failed", "cancelled"),
            name=op.f("ck_trials_state"),
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_trials_job_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_trials"),
        sa.UniqueConstraint("job_id", "number", name="uq_trials_job_id_number"),
        sa.UniqueConstraint("job_id", "optuna_number", name="uq_trials_job_id_optuna_number"),
    )
    op.create_index("ix_trials_best", "trials", ["job_id", sa.literal_column("macro DESC NULLS LAST"), "number"])
    op.create_index("ix_trials_job_id_state", "trials", ["job_id", "state"])
    op.create_index("ix_trials_recipe_digest", "trials", ["recipe_digest"])
    op.create_table(
        "artifacts",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=True),
        sa.Column("trial_id", sa.Text(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("weights_digest", sa.Text(), nullable=True),
        sa.Column("files", postgresql.JSONB(), server_default=sa.text("'[]'::jsonb"), nullable=False),
        sa.Column("bytes", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_artifacts_job_id", ondelete="SET NULL"),
        sa.ForeignKeyConstraint(["trial_id"], ["trials.id"], name="fk_artifacts_trial_id", ondelete="SET NULL"),
        sa.PrimaryKeyConstraint("id", name="pk_artifacts"),
    )
    op.create_index("ix_artifacts_created_at_id", "artifacts", ["created_at", "id"])
    op.create_index("ix_artifacts_job_id", "artifacts", ["job_id"])
    op.create_index("ix_artifacts_trial_id", "artifacts", ["trial_id"])
    op.create_table(
        "steps",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=True),
        sa.Column("trial_id", sa.Text(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("payload", postgresql.JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.Column("priority", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.Column("fence", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("infra_restarts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=True),
        sa.Column("rung_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("result", postgresql.JSONB(), nullable=True),
        sa.Column("failure", postgresql.JSON(), nullable=True),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(one_of("device", "none", "cpu", "cuda"), name=op.f("ck_steps_device")),
        sa.CheckConstraint(
            one_of(
                "kind",
                "inspect_model",
                "inspect_task",
                "advance",
                "run_trial",
                "refine",
                "confirm",
                "export",
                "evaluate",
                "statistics",
                "train_generator",
                "explain",
            ),
            name=op.f("ck_steps_kind"),
        ),
        sa.CheckConstraint(
            "state <> 'running' OR (owner IS NOT NULL AND lease_until IS NOT NULL)", name=op.f("ck_steps_leased")
        ),
        sa.CheckConstraint(
            one_of("state", "queued", "running", "done", "failed", "cancelled"), name=op.f("ck_steps_state")
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_steps_job_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["trial_id"], ["trials.id"], name="fk_steps_trial_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_steps"),
    )
    op.create_index("ix_steps_job_id", "steps", ["job_id"])
    op.create_index("ix_steps_leases", "steps", ["lease_until"], postgresql_where=sa.text("state = 'running'"))
    op.create_index("ix_steps_owners", "steps", ["owner"], postgresql_where=sa.text("state = 'running'"))
    op.create_index("ix_steps_queued", "steps", ["device", "created_at"], postgresql_where=sa.text("state = 'queued'"))
    op.create_index("ix_steps_queued_job", "steps", ["job_id"], postgresql_where=sa.text("state = 'queued'"))
    op.create_index("ix_steps_running", "steps", ["job_id"], postgresql_where=sa.text("state = 'running'"))
    op.create_index("ix_steps_trial_id", "steps", ["trial_id"])
    op.create_index(
        "uq_steps_running_advance",
        "steps",
        ["job_id"],
        unique=True,
        postgresql_where=sa.text("kind = 'advance' AND state = 'running'"),
    )


def downgrade() -> None:
    for table in ("steps", "artifacts", "trials", "events", "tasks", "outcomes", "models", "jobs"):
        op.drop_table(table)
