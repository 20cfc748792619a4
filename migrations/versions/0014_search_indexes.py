"""Search indexes in the database, where that is PostgreSQL; the tables of points come with them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if op.get_context().dialect.name != "postgresql":
        return
    op.create_table(
        "search_indexes",
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("space_id", sa.String(length=64), nullable=False),
        sa.Column("key", sa.String(length=40), nullable=False),
        sa.Column("epsilon", sa.Float(), nullable=False),
        sa.Column("fitted", sa.BigInteger(), nullable=False),
        sa.Column("axes", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_search_indexes")),
        sa.UniqueConstraint("id", name=op.f("uq_search_indexes_id")),
    )
    op.create_index(op.f("ix_search_indexes_space_id_key"), "search_indexes", ["space_id", "key"])
    # Twenty megabytes of random digits: to look for what could be left out takes long.
    op.execute("ALTER TABLE search_indexes ALTER COLUMN axes SET STORAGE EXTERNAL")


def downgrade() -> None:
    if op.get_context().dialect.name != "postgresql":
        return
    for (name,) in op.get_bind().execute(sa.text("SELECT id FROM search_indexes")).all():
        op.execute(f"DROP TABLE IF EXISTS search_points_{name}")
    op.drop_table("search_indexes")
