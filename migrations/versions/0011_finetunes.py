"""Fine-tuning runs on stored tasks."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_Sequence = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "finetunes",
        sa.Column("seq", _Sequence, autoincrement=True, nullable=False),
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("tenant", sa.String(100), nullable=False),
        sa.Column("task_seq", _Sequence, nullable=False),
        sa.Column("job_seq", _Sequence, nullable=False),
        sa.Column("candidate", sa.JSON(), nullable=False),
        sa.Column("recipe", sa.JSON(), nullable=False),
        sa.Column("device", sa.JSON(), nullable=False),
        sa.Column("archives", sa.JSON(), nullable=False),
        sa.Column("asked", sa.JSON(), nullable=False),
        sa.Column("warnings", sa.JSON(), nullable=False),
        sa.Column("forecast", sa.JSON(), nullable=True),
        sa.Column("curve", sa.JSON(), nullable=False),
        sa.Column("result", sa.JSON(), nullable=True),
        sa.Column("outcome_id", sa.String(32), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["task_seq"],
            ["tasks.seq"],
            name=op.f("fk_finetunes_task_seq_tasks"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["job_seq"], ["jobs.seq"], name=op.f("fk_finetunes_job_seq_jobs"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_finetunes")),
        sa.UniqueConstraint("id", name=op.f("uq_finetunes_id")),
        sa.UniqueConstraint("job_seq", name=op.f("uq_finetunes_job_seq")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_finetunes_tenant_seq"), "finetunes", ["tenant", "seq"])
    op.create_index(op.f("ix_finetunes_task_seq"), "finetunes", ["task_seq"])


def downgrade() -> None:
    op.drop_table("finetunes")
    # What is older would take them for embeddings.
    op.execute("DELETE FROM outbox WHERE job_id IN (SELECT id FROM jobs WHERE kind = 'finetune')")
    op.execute("DELETE FROM jobs WHERE kind = 'finetune'")
