"""Which filters of a space belong to which layer."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "space_layers",
        sa.Column("space_id", sa.String(length=64), nullable=False),
        sa.Column("layers", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("space_id", name=op.f("pk_space_layers")),
    )


def downgrade() -> None:
    op.drop_table("space_layers")
