"""Models and checkpoints of runs in the blob store; those of before a worker moves there."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

_Sequence = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "finetune_files",
        sa.Column("finetune_seq", _Sequence, autoincrement=False, nullable=False),
        sa.Column("name", sa.String(20), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["finetune_seq"],
            ["finetunes.seq"],
            name=op.f("fk_finetune_files_finetune_seq_finetunes"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("finetune_seq", "name", name=op.f("pk_finetune_files")),
    )
    op.create_index(op.f("ix_finetune_files_sha256"), "finetune_files", ["sha256"])


def downgrade() -> None:
    op.drop_table("finetune_files")
