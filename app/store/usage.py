"""What a tenant has here, held against what it may have."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.errors import Forbidden, Task2VecError, TooManyRequests, Unavailable
from app.store.blobs import Blob
from app.store.session import hold
from app.store.spaces import REINDEX
from app.store.tables import Archive, Job, Task

QUEUE_PATIENCE_SECONDS = 30  # before it is worth asking again


@dataclass(frozen=True, slots=True)
class Usage:
    """`stored_bytes` of archives, those with the same bytes once; what is only asked about counts
    as stored, and is no task."""

    stored_bytes: int
    tasks: int
    queued_jobs: int


@dataclass(frozen=True, slots=True)
class Quotas:
    """None: as much as you like."""

    stored_bytes: int | None = None
    tasks: int | None = None
    queued_jobs: int | None = None


def of_tenant(session: Session, tenant: str) -> Usage:
    kept = (Task.tenant == tenant, Task.expires_at.is_(None))
    stored = select(Archive.sha256, Archive.size_bytes).join(Task, Task.seq == Archive.task_seq)
    blobs = stored.where(Task.tenant == tenant).distinct().subquery()
    queued = (Job.tenant == tenant, Job.state == "queued", Job.kind != REINDEX)
    return Usage(
        session.scalar(select(func.coalesce(func.sum(blobs.c.size_bytes), 0))) or 0,
        session.scalar(select(func.count()).select_from(Task).where(*kept)) or 0,
        session.scalar(select(func.count()).select_from(Job).where(*queued)) or 0,
    )


def tasks_by_status(session: Session, tenant: str) -> dict[str, int]:
    """Those that are listed; a status that no task has is left out."""
    listed = (Task.tenant == tenant, Task.expires_at.is_(None))
    counts = select(Task.status, func.count()).where(*listed).group_by(Task.status)
    return dict(session.execute(counts).all())


def require_room(
    session: Session,
    tenant: str,
    quotas: Quotas,
    max_queued_jobs: int,
    *,
    archive: Blob | None = None,
    tasks: int = 0,
) -> None:
    """For one more job, with an archive and a task if it comes with them, until this is committed.

    Unavailable where too many jobs of all tenants wait, TooManyRequests where those of this one are
    too many, Forbidden where its tasks or bytes would be.
    """
    require_short_queue(session, max_queued_jobs)
    if quotas == Quotas():
        return
    hold(session, f"usage of {tenant}")  # two that arrive together would each see room for one
    used = of_tenant(session, tenant)
    if quotas.queued_jobs is not None and used.queued_jobs >= quotas.queued_jobs:
        raise too_many_queued(used.queued_jobs, quotas.queued_jobs)
    if quotas.tasks is not None and used.tasks + tasks > quotas.tasks:
        raise _exceeded("tasks", used.tasks, quotas.tasks)
    added = 0 if archive is None or _has(session, tenant, archive) else archive.size_bytes
    if quotas.stored_bytes is not None and used.stored_bytes + added > quotas.stored_bytes:
        raise no_room_for_bytes(used.stored_bytes, quotas.stored_bytes)


def require_short_queue(session: Session, max_queued_jobs: int) -> None:
    waiting = (Job.state == "queued", Job.kind != REINDEX)
    count = session.scalar(select(func.count()).select_from(Job).where(*waiting)) or 0
    if count >= max_queued_jobs:
        raise Unavailable(
            "queue-full",
            f"{count:,} jobs wait for a worker already.",
            "Try again in a while, or ask the operator for more workers.",
            retry_after_seconds=QUEUE_PATIENCE_SECONDS,
        )


def too_many_queued(used: int, limit: int) -> TooManyRequests:
    return TooManyRequests(
        "quota-exceeded",
        f"{used:,} of your jobs wait already; {limit:,} may.",
        "Wait until some of them have ended, or cancel some.",
        quota="queued_jobs",
        used=used,
        limit=limit,
        retry_after_seconds=QUEUE_PATIENCE_SECONDS,
    )


def no_room_for_bytes(used: int, limit: int) -> Task2VecError:
    return _exceeded("stored_bytes", used, limit)


def _exceeded(quota: str, used: int, limit: int) -> Forbidden:
    words = quota.replace("_", " ")
    return Forbidden(
        "quota-exceeded",
        f"You have {used:,} {words}; {limit:,} are allowed, and this would be more.",
        "Delete tasks that you do not need, or ask the operator for more.",
        quota=quota,
        used=used,
        limit=limit,
    )


def _has(session: Session, tenant: str, archive: Blob) -> bool:
    mine = (Task.tenant == tenant, Archive.sha256 == archive.sha256)
    query = select(Archive.sha256).join(Task, Task.seq == Archive.task_seq).where(*mine)
    return session.scalar(query.limit(1)) is not None
