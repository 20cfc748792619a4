"""Discriminants of embeddings; those of before have none."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # On SQLite '' would be a text.
    empty = sa.text("x''" if op.get_bind().dialect.name == "sqlite" else "''")
    op.add_column(
        "embeddings",
        sa.Column("discriminants", sa.LargeBinary(), server_default=empty, nullable=False),
    )


def downgrade() -> None:
    op.drop_column("embeddings", "discriminants")
