"""What candidates' features tell of tasks."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_Sequence = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "candidate_scores",
        sa.Column("seq", _Sequence, autoincrement=True, nullable=False),
        sa.Column("task_seq", _Sequence, nullable=False),
        sa.Column("job_seq", _Sequence, nullable=False),
        sa.Column("candidate", sa.String(100), nullable=False),
        sa.Column("card", sa.JSON(), nullable=False),
        sa.Column("archives", sa.JSON(), nullable=False),
        sa.Column("n_images", sa.Integer(), nullable=True),
        sa.Column("scores", sa.JSON(), nullable=True),
        sa.Column("problem", sa.JSON(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["task_seq"],
            ["tasks.seq"],
            name=op.f("fk_candidate_scores_task_seq_tasks"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["job_seq"],
            ["jobs.seq"],
            name=op.f("fk_candidate_scores_job_seq_jobs"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_candidate_scores")),
        sa.UniqueConstraint(
            "task_seq", "candidate", name=op.f("uq_candidate_scores_task_seq_candidate")
        ),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_candidate_scores_job_seq"), "candidate_scores", ["job_seq"])


def downgrade() -> None:
    op.drop_table("candidate_scores")
    # What is older would take them for embeddings.
    op.execute("DELETE FROM outbox WHERE job_id IN (SELECT id FROM jobs WHERE kind = 'score')")
    op.execute("DELETE FROM jobs WHERE kind = 'score'")
