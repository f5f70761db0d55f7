"""What samplers heard of trials, and a way to a job's events of one kind.

Revision: 0004, after 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    heard = sa.Column("heard", postgresql.JSONB(), server_default=sa.text("'[]'::jsonb"), nullable=False)
    op.add_column("trials", heard)
    op.create_index(op.f("ix_events_job_id_kind_id"), "events", ["job_id", "kind", "id"])


def downgrade() -> None:
    op.drop_index(op.f("ix_events_job_id_kind_id"), "events")
    op.drop_column("trials", "heard")
