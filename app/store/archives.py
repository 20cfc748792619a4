"""Which blobs a task is made of."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.store.blobs import Blob, BlobStore
from app.store.tables import Archive, Task


def append(task: Task, blob: Blob) -> None:
    """The archive that the task's present version brought: each version brings one."""
    task.archives.append(
        Archive(position=task.version - 1, sha256=blob.sha256, size_bytes=blob.size_bytes)
    )


def drop_latest(task: Task) -> None:
    """Takes the task back to the version before."""
    task.version -= 1
    task.archives = [archive for archive in task.archives if archive.position < task.version]


def unneeded(session: Session, digests: Iterable[str]) -> list[str]:
    """Those of the blobs that no task is made of."""
    session.flush()
    asked = set(digests)
    needed = session.scalars(select(Archive.sha256).where(Archive.sha256.in_(asked)).distinct())
    return sorted(asked - set(needed))


def reclaim(session: Session, blobs: BlobStore, older_than_seconds: float) -> int:
    """Deletes blobs that no task is made of, and what torn uploads left; how many files went.

    `older_than_seconds` spares uploads whose task is not committed yet.
    """
    torn = blobs.sweep(older_than_seconds)
    # Listed before the needed ones are read: what arrives between the two is not on the list.
    stored = blobs.stored(older_than_seconds)
    needed = set(session.scalars(select(Archive.sha256).distinct()))
    orphans = [sha256 for sha256 in stored if sha256 not in needed]
    for sha256 in orphans:
        blobs.delete(sha256)
    return torn + len(orphans)
