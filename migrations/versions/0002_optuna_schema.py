"""Optuna's own tables, in a schema of their own, where its tools find them.

Revision: 0002, after 0001
"""

from __future__ import annotations

from alembic import op
from sqlalchemy import URL

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Optuna creates its tables over a connection of its own, which must see the schema: hence no transaction here.
    with op.get_context().autocommit_block():
        op.execute("CREATE SCHEMA IF NOT EXISTS optuna")
        _create_tables(op.get_bind().engine.url)


def downgrade() -> None:
    op.execute("DROP SCHEMA optuna CASCADE")


def _create_tables(url: URL) -> None:
    from optuna.storages import RDBStorage

    address = url.update_query_dict({"options": "-csearch_path=optuna"})
    storage = RDBStorage(address.render_as_string(hide_password=False))
    storage.engine.dispose()
