"""Maps of tasks, and the places of tasks on them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_SEQUENCE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "atlases",
        sa.Column("seq", _SEQUENCE, autoincrement=True, nullable=False),
        sa.Column("tenant", sa.String(100), nullable=False),
        sa.Column("space_id", sa.String(64), nullable=False),
        sa.Column("signature", sa.String(64), nullable=False),
        sa.Column("n_tasks", sa.Integer(), nullable=False),
        sa.Column("n_settled", sa.Integer(), nullable=False),
        sa.Column("clusters", sa.JSON(), nullable=False),
        sa.Column("dendrogram", sa.JSON(), nullable=False),
        sa.Column("trustworthiness", sa.Float(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_atlases")),
        sa.UniqueConstraint("tenant", "space_id", name=op.f("uq_atlases_tenant_space_id")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "atlas_points",
        sa.Column("atlas_seq", _SEQUENCE, nullable=False),
        sa.Column("task_seq", _SEQUENCE, nullable=False),
        sa.Column("embedding_seq", sa.BigInteger(), nullable=False),
        sa.Column("x", sa.Float(), nullable=False),
        sa.Column("y", sa.Float(), nullable=False),
        sa.Column("cluster", sa.Integer(), nullable=True),
        sa.Column("complexity", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(
            ["atlas_seq"],
            ["atlases.seq"],
            name=op.f("fk_atlas_points_atlas_seq_atlases"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["task_seq"],
            ["tasks.seq"],
            name=op.f("fk_atlas_points_task_seq_tasks"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("atlas_seq", "task_seq", name=op.f("pk_atlas_points")),
    )
    op.create_index(op.f("ix_atlas_points_task_seq"), "atlas_points", ["task_seq"])


def downgrade() -> None:
    op.drop_table("atlas_points")
    op.drop_table("atlases")
