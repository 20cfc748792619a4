"""A strip of small images for each class of an embedded set."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "class_strips",
        sa.Column(
            "embedding_seq",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=False,
            nullable=False,
        ),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("picture", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["embedding_seq"],
            ["embeddings.seq"],
            name=op.f("fk_class_strips_embedding_seq_embeddings"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("embedding_seq", "number", name=op.f("pk_class_strips")),
    )


def downgrade() -> None:
    op.drop_table("class_strips")
