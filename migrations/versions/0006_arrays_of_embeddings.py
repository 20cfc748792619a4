"""The arrays of embeddings in a table of their own."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

ARRAYS = ("vector", "domain", "discriminants", "draw_error", "sampling_error")
NAMES = ", ".join(ARRAYS)


def upgrade() -> None:
    op.create_table(
        "embedding_arrays",
        sa.Column(
            "embedding_seq",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=False,
            nullable=False,
        ),
        *(sa.Column(name, sa.LargeBinary(), nullable=False) for name in ARRAYS),
        sa.ForeignKeyConstraint(
            ["embedding_seq"],
            ["embeddings.seq"],
            name=op.f("fk_embedding_arrays_embedding_seq_embeddings"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("embedding_seq", name=op.f("pk_embedding_arrays")),
    )
    op.execute(
        f"INSERT INTO embedding_arrays (embedding_seq, {NAMES}) "  # noqa: S608
        f"SELECT seq, {NAMES} FROM embeddings"
    )
    for name in ARRAYS:
        op.drop_column("embeddings", name)


def downgrade() -> None:
    # On SQLite '' would be a text.
    empty = sa.text("x''" if op.get_bind().dialect.name == "sqlite" else "''")
    for name in ARRAYS:
        column = sa.Column(name, sa.LargeBinary(), server_default=empty, nullable=False)
        op.add_column("embeddings", column)
    # Both lie under the same seqs.
    values = ", ".join(
        f"{name} = (SELECT {name} FROM embedding_arrays WHERE embedding_seq = embeddings.seq)"  # noqa: S608
        for name in ARRAYS
    )
    op.execute(f"UPDATE embeddings SET {values}")  # noqa: S608
    op.drop_table("embedding_arrays")
