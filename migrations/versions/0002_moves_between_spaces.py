"""A task's next embedding, a job's own probe, jobs by state; a library's population."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # In place and by hand: to add a reference, Alembic would copy the table on SQLite.
    integer = "INTEGER" if op.get_bind().dialect.name == "sqlite" else "BIGINT"
    op.execute(
        f"ALTER TABLE tasks ADD COLUMN next_embedding_seq {integer} "
        "CONSTRAINT fk_tasks_next_embedding_seq_embeddings REFERENCES embeddings (seq)"
    )
    op.create_index(op.f("ix_tasks_next_embedding_seq"), "tasks", ["next_embedding_seq"])
    op.add_column("jobs", sa.Column("probe", sa.String(length=100), nullable=True))
    op.create_index(op.f("ix_jobs_state_kind"), "jobs", ["state", "kind"])
    op.add_column("reference_libraries", sa.Column("population", sa.LargeBinary(), nullable=True))


def downgrade() -> None:
    op.drop_column("reference_libraries", "population")
    op.drop_index(op.f("ix_jobs_state_kind"), table_name="jobs")
    op.drop_column("jobs", "probe")
    op.drop_index(op.f("ix_tasks_next_embedding_seq"), table_name="tasks")
    op.drop_column("tasks", "next_embedding_seq")  # its constraint goes with it
