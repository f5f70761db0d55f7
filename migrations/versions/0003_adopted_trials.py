"""Trials may be adopted from another job.

Revision: 0003, after 0002
"""

from __future__ import annotations

from collections.abc import Iterable

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

BEFORE = ("parent", "enqueued", "proposed", "completed")


def upgrade() -> None:
    _allow((*BEFORE[:3], "adopted", *BEFORE[3:]))


def downgrade() -> None:
    op.execute("DELETE FROM trials WHERE origin = 'adopted'")
    _allow(BEFORE)


def _allow(origins: Iterable[str]) -> None:
    op.drop_constraint(op.f("ck_trials_origin"), "trials")
    listed = ", ".join(repr(origin) for origin in origins)
    op.create_check_constraint(op.f("ck_trials_origin"), "trials", f"origin IN ({listed})")
