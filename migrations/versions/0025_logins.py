"""Log-ins of browsers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "logins",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("key_id", sa.String(length=32), nullable=False),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["key_id"],
            ["api_keys.id"],
            name=op.f("fk_logins_key_id_api_keys"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_logins")),
    )
    with op.batch_alter_table("logins") as table:
        table.create_index(op.f("ix_logins_ends_at"), ["ends_at"])
        table.create_index(op.f("ix_logins_key_id"), ["key_id"])


def downgrade() -> None:
    op.drop_table("logins")
