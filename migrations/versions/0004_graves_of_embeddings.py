"""Graves of deleted embeddings, by which search indexes follow the table."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "embedding_graves",
        sa.Column(
            "seq",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("space_id", sa.String(64), nullable=False),
        sa.Column("embedding_seq", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_embedding_graves")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        op.f("ix_embedding_graves_space_id_seq"), "embedding_graves", ["space_id", "seq"]
    )
    # The newest of a space is asked for at every search.
    op.create_index(op.f("ix_embeddings_space_id_seq"), "embeddings", ["space_id", "seq"])
    op.drop_index(op.f("ix_embeddings_space_id"), "embeddings")


def downgrade() -> None:
    op.create_index(op.f("ix_embeddings_space_id"), "embeddings", ["space_id"])
    op.drop_index(op.f("ix_embeddings_space_id_seq"), "embeddings")
    op.drop_table("embedding_graves")
