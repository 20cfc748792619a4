"""Jobs wait for their tenant's turn, by priority."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "turns",
        sa.Column("queue", sa.String(20), nullable=False),
        sa.Column("tenant", sa.String(100), nullable=False),
        sa.Column("taken", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("queue", "tenant", name=op.f("pk_turns")),
    )
    op.add_column("jobs", sa.Column("priority", sa.Integer(), nullable=False, server_default="1"))
    op.add_column(
        "jobs", sa.Column("handed_over", sa.Boolean(), nullable=False, server_default=sa.false())
    )
    # What is older handed over whatever it accepted, at once.
    op.execute(
        "UPDATE jobs SET handed_over = true WHERE state IN ('queued', 'running')"
        " AND kind <> 'reindex' AND id NOT IN (SELECT job_id FROM outbox)"
    )
    op.create_index(
        op.f("ix_jobs_handed_over"),
        "jobs",
        ["handed_over"],
        sqlite_where=sa.text("handed_over"),
        postgresql_where=sa.text("handed_over"),
    )
    op.create_index(op.f("ix_outbox_job_id"), "outbox", ["job_id"])


def downgrade() -> None:
    op.drop_index(op.f("ix_outbox_job_id"), "outbox")
    op.drop_index(op.f("ix_jobs_handed_over"), "jobs")
    for column in ("handed_over", "priority"):
        op.drop_column("jobs", column)
    op.drop_table("turns")
