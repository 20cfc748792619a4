"""Strips of small images, one a class of an embedded set: gone with the embedding."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from app.embedding.strips import Strip
from app.errors import NotFound
from app.store.tables import ClassStrip, Embedding, Task


def keep(session: Session, embedding: Embedding, strips: Sequence[Strip]) -> None:
    """The same images give the same strips: those that are there stay."""
    of_embedding = ClassStrip.embedding_seq == embedding.seq
    if session.scalar(select(exists().where(of_embedding))):
        return
    session.add_all(
        ClassStrip(
            embedding_seq=embedding.seq, number=number, label=strip.label, picture=strip.picture
        )
        for number, strip in enumerate(strips)
    )


def numbers(session: Session, task: Task) -> dict[str, int]:
    """By label the number of its strip, of those classes that have one."""
    query = select(ClassStrip.label, ClassStrip.number)
    of_task = query.where(ClassStrip.embedding_seq == task.embedding_seq)
    found: dict[str, int] = dict(session.execute(of_task.order_by(ClassStrip.number)).all())
    return found


def picture(session: Session, task: Task, number: int) -> bytes:
    query = select(ClassStrip.picture).where(
        ClassStrip.embedding_seq == task.embedding_seq, ClassStrip.number == number
    )
    found = session.scalar(query)
    if found is None:
        raise NotFound(
            "no-strip",
            f"The task {task.id!r} has no strip of images of that number.",
            f"Take the addresses from /v1/tasks/{task.id}/classes.",
        )
    return found
