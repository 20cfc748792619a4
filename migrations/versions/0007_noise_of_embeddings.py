"""What draws add to the parts of an embedding, and to its distances under every metric."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("embeddings", sa.Column("noise", sa.JSON(), nullable=True))


def downgrade() -> None:
    op.drop_column("embeddings", "noise")
