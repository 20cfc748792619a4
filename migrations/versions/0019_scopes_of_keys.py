"""Scope, expiry, beginning, successor and last use of API keys; those of before may read and write,
as they could."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

_TIMES = ("expires_at", "last_used_at")


def upgrade() -> None:
    with op.batch_alter_table("api_keys") as table:
        table.add_column(sa.Column("scope", sa.String(10), server_default="write", nullable=False))
        table.add_column(sa.Column("prefix", sa.String(20), server_default="", nullable=False))
        table.add_column(sa.Column("replaced_by", sa.String(32), nullable=True))
        for name in _TIMES:
            table.add_column(sa.Column(name, sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    # Keys that could not change anything, or not for ever, must not become such that can.
    op.execute("DELETE FROM api_keys WHERE scope = 'read' OR expires_at IS NOT NULL")
    with op.batch_alter_table("api_keys") as table:
        for name in ("scope", "prefix", "replaced_by", *_TIMES):
            table.drop_column(name)
