"""What training steps of candidates took on devices, as they were timed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "timings",
        sa.Column("tenant", sa.String(100), nullable=False),
        sa.Column("device", sa.String(100), nullable=False),
        sa.Column("candidate", sa.String(100), nullable=False),
        sa.Column("batch_size", sa.Integer(), nullable=False),
        sa.Column("step_seconds", sa.JSON(), nullable=False),
        sa.Column("forward_seconds", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "device", "candidate", name=op.f("pk_timings")),
    )


def downgrade() -> None:
    op.drop_table("timings")
