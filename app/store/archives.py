"""Which blobs are needed: what tasks are made of, what models are to classify, what runs left."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import CompoundSelect, func, or_, select, union_all
from sqlalchemy.orm import Session

from app.errors import Unavailable
from app.store.blobs import Blob, BlobStore
from app.store.progress import OnCount, counting
from app.store.session import hold, portions
from app.store.spaces import UNFINISHED
from app.store.tables import Archive, Finetune, FinetuneFile, Job, Prediction, Task

GONE = "archive-gone"
"""Code of `require_kept`: to put the bytes again helps."""


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
    """Those of the blobs that nobody needs."""
    session.flush()
    asked = sorted(set(digests))
    kept = _needed().subquery()
    needed: set[str] = set()
    for some in portions(asked):
        needed.update(session.scalars(select(kept.c.sha256).where(kept.c.sha256.in_(some))))
    return [sha256 for sha256 in asked if sha256 not in needed]


def require_kept(session: Session, blobs: BlobStore, *digests: str) -> None:
    """In the unit of work that commits who needs the blobs; Unavailable GONE where one is gone.

    The other half of `delete_unneeded`: whichever comes first, nobody loses its bytes.
    """
    for sha256 in sorted(digests):
        hold(session, sha256)
        if blobs.size_bytes(sha256) is None:
            raise Unavailable(
                GONE, "The same bytes were deleted while these arrived.", "Send the request again."
            )


def delete_unneeded(
    session: Session,
    blobs: BlobStore,
    digests: Iterable[str],
    on_blob: OnCount = lambda *_: None,
) -> int:
    """Deletes those of the blobs that are `unneeded`; how many.

    In a writing unit of work of its own: whoever brings the same bytes meanwhile either has
    committed that it needs them before this looks, or finds the blob gone.
    """
    asked = sorted(set(digests))  # in one order for all, or two could wait for each other
    for sha256 in asked:
        hold(session, sha256)
    orphans = unneeded(session, asked)
    for sha256 in counting(orphans, len(orphans), on_blob):
        blobs.delete(sha256)
    return len(orphans)


def stored(session: Session) -> tuple[int, int]:
    """How many different archives the tasks of all tenants are made of, and their bytes."""
    each = select(Archive.sha256, func.max(Archive.size_bytes).label("size_bytes"))
    distinct = each.group_by(Archive.sha256).subquery()
    count, size_bytes = session.execute(
        select(func.count(), func.coalesce(func.sum(distinct.c.size_bytes), 0)).select_from(
            distinct
        )
    ).one()
    return count, int(size_bytes)


def orphans(session: Session, blobs: BlobStore, older_than_seconds: float) -> list[str]:
    """The stored blobs that are `unneeded`: candidates for `delete_unneeded`.

    `older_than_seconds` spares uploads whose task is not committed yet.
    """
    stored = blobs.stored(older_than_seconds)
    kept = needed(session)
    return [sha256 for sha256 in stored if sha256 not in kept]


def needed(session: Session) -> set[str]:
    """Digests of all blobs that somebody needs."""
    return set(session.scalars(_needed()))


def _needed() -> CompoundSelect[str]:
    """Digests: archives of tasks, images whose classification has not ended, and of runs what they
    left and what they are to go on from."""
    goes_on = Job.state.in_(UNFINISHED)
    has_model = or_(goes_on, Job.state == "succeeded")
    return union_all(
        select(Archive.sha256),
        select(Prediction.sha256).join(Job).where(goes_on),
        select(FinetuneFile.sha256).join(Finetune).join(Job).where(has_model),
    )
