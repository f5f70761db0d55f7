"""Trials may be found by a refinement.

Revision: 0005, after 0004
"""

from __future__ import annotations

from collections.abc import Iterable

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

BEFORE = ("parent", "enqueued", "proposed", "adopted", "completed")


def upgrade() -> None:
    _allow((*BEFORE[:4], "refined", *BEFORE[4:]))


def downgrade() -> None:
    op.execute("DELETE FROM trials WHERE origin = 'refined'")
    _allow(BEFORE)


def _allow(origins: Iterable[str]) -> None:
    op.drop_constraint(op.f("ck_trials_origin"), "trials")
    listed = ", ".join(repr(origin) for origin in origins)
    op.create_check_constraint(op.f("ck_trials_origin"), "trials", f"origin IN ({listed})")
