"""What the intake found in a task's archives, as the store keeps it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.store.tables import Task


@dataclass(frozen=True, slots=True)
class Intake:
    """`summary` and `files` are IntakeReport's JSON.

    Where the set was refused, `label_kind` is what was asked for and the counts are None.
    """

    label_kind: str
    n_images: int | None
    n_classes: int | None
    summary: dict[str, Any]
    files: list[Any]


def of_embedding(session: Session, embedding_seq: int) -> Intake | None:
    """The intake of a ready task with that embedding: the same bytes need not be read again."""
    task = session.scalar(
        select(Task)
        .where(Task.embedding_seq == embedding_seq, Task.status == "ready")
        .order_by(Task.seq)
        .limit(1)
    )
    if task is None or task.intake_summary is None:
        return None
    return Intake(
        task.label_kind,
        task.n_images,
        task.n_classes,
        task.intake_summary,
        task.intake_files or [],
    )
