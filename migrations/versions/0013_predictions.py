"""Images that the models of fine-tuning runs classify."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_Sequence = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "predictions",
        sa.Column("seq", _Sequence, autoincrement=True, nullable=False),
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("tenant", sa.String(100), nullable=False),
        sa.Column("finetune_seq", _Sequence, nullable=False),
        sa.Column("job_seq", _Sequence, nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("k", sa.Integer(), nullable=False),
        sa.Column("threshold", sa.Float(), nullable=False),
        sa.Column("result", sa.JSON(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["finetune_seq"],
            ["finetunes.seq"],
            name=op.f("fk_predictions_finetune_seq_finetunes"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["job_seq"], ["jobs.seq"], name=op.f("fk_predictions_job_seq_jobs"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_predictions")),
        sa.UniqueConstraint("id", name=op.f("uq_predictions_id")),
        sa.UniqueConstraint("job_seq", name=op.f("uq_predictions_job_seq")),
        sqlite_autoincrement=True,
    )
    for column in ("finetune_seq", "sha256"):
        op.create_index(op.f(f"ix_predictions_{column}"), "predictions", [column])


def downgrade() -> None:
    op.drop_table("predictions")
    # What is older would take them for embeddings.
    op.execute("DELETE FROM outbox WHERE job_id IN (SELECT id FROM jobs WHERE kind = 'predict')")
    op.execute("DELETE FROM jobs WHERE kind = 'predict'")
