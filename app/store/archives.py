"""Which blobs a task is made of, and which are images that a model is still to classify."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from app.errors import Unavailable
from app.store.blobs import Blob, BlobStore
from app.store.session import hold
from app.store.spaces import UNFINISHED
from app.store.tables import Archive, Job, Prediction, Task


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
    """Those of the blobs that no task is made of, and no model is to look at."""
    session.flush()
    asked = set(digests)
    return sorted(
        asked.difference(
            session.scalars(select(Archive.sha256).where(Archive.sha256.in_(asked)).distinct()),
            session.scalars(_awaited().where(Prediction.sha256.in_(asked))),
        )
    )


def require_kept(session: Session, blobs: BlobStore, sha256: str) -> None:
    """In the unit of work that commits a task made of the blob; Unavailable where it is gone.

    The other half of `delete_unneeded`: whichever comes first, no task loses its bytes.
    """
    hold(session, sha256)
    if blobs.size_bytes(sha256) is None:
        raise Unavailable(
            "archive-gone",
            "The same bytes were deleted while these arrived.",
            "Send the request again.",
        )


def delete_unneeded(session: Session, blobs: BlobStore, digests: Iterable[str]) -> int:
    """Deletes those of the blobs that are `unneeded`; how many.

    In a writing unit of work of its own: whoever brings the same bytes meanwhile either has the
    task committed before this looks, or finds the blob gone.
    """
    asked = sorted(set(digests))  # in one order for all, or two could wait for each other
    for sha256 in asked:
        hold(session, sha256)
    orphans = unneeded(session, asked)
    for sha256 in orphans:
        blobs.delete(sha256)
    return len(orphans)


def orphans(session: Session, blobs: BlobStore, older_than_seconds: float) -> list[str]:
    """The stored blobs that are `unneeded`: candidates for `delete_unneeded`.

    `older_than_seconds` spares uploads whose task is not committed yet.
    """
    stored = blobs.stored(older_than_seconds)
    needed = {*session.scalars(select(Archive.sha256).distinct()), *session.scalars(_awaited())}
    return [sha256 for sha256 in stored if sha256 not in needed]


def _awaited() -> Select[str]:
    """Digests of images whose classification has not ended."""
    return select(Prediction.sha256).join(Job).where(Job.state.in_(UNFINISHED)).distinct()
