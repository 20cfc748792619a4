"""Calls to be made when jobs end, and what tenants have set."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

_Sequence = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "tenants",
        sa.Column("tenant", sa.String(100), nullable=False),
        sa.Column("callback_secret", sa.String(100), nullable=True),
        sa.Column("share_outcomes", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", name=op.f("pk_tenants")),
    )
    op.create_table(
        "callbacks",
        sa.Column("seq", _Sequence, autoincrement=True, nullable=False),
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("tenant", sa.String(100), nullable=False),
        sa.Column("job_seq", _Sequence, nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("problem", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_seq"], ["jobs.seq"], name=op.f("fk_callbacks_job_seq_jobs"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_callbacks")),
        sa.UniqueConstraint("id", name=op.f("uq_callbacks_id")),
        sa.UniqueConstraint("job_seq", name=op.f("uq_callbacks_job_seq")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_callbacks_state"), "callbacks", ["state"])


def downgrade() -> None:
    op.drop_table("callbacks")
    op.drop_table("tenants")
