"""Moving a store to another space: every task whose images are kept is embedded anew from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Result, and_, func, or_, select, update
from sqlalchemy.orm import Session

from app.store import jobs
from app.store.blobs import BlobStore
from app.store.spaces import REINDEX, UNFINISHED
from app.store.tables import PUBLIC, Archive, Embedding, Job, Task, now


@dataclass(slots=True)
class Begun:
    """Numbers of tasks, and the ids of those that stay where they are."""

    queued: int = 0
    moving: int = 0  # already, since an earlier call or by a job of their own
    there: int = 0
    busy: list[str] = field(default_factory=list)  # being embedded in another space just now
    without_images: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Left:
    """A task whose last move came to nothing, and why."""

    task_id: str
    tenant: str
    name: str
    state: str  # of the job: refused failed cancelled
    detail: str | None


@dataclass(frozen=True, slots=True)
class Progress:
    """Jobs that wait and run, tasks embedded that await the others, tasks left behind."""

    queued: int
    running: int
    embedded: int
    left: list[Left]


def begin(session: Session, blobs: BlobStore, probe: str, space_id: str) -> Begun:
    """Queues a job for every embedded task, of any tenant, that is neither there nor on its way.

    A move to anywhere else that is not over ends here. The reference library comes with its file.
    """
    _end_other_moves(session, probe, space_id)
    awaited = select(Job.task_seq).where(Job.kind == REINDEX, Job.state.in_(UNFINISHED))
    moving = set(session.scalars(awaited))
    stored = _with_images(session, blobs)
    begun, queued = Begun(), []
    for task in _tasks(session):
        if task.status in ("queued", "embedding"):
            if task.probe == probe:
                begun.moving += 1
            else:
                begun.busy.append(task.id)
        elif task.space_id == space_id:
            begun.there += 1
        elif task.next_embedding_seq is not None or task.seq in moving:
            begun.moving += 1
        elif task.seq not in stored:
            begun.without_images.append(task.id)
        else:
            queued.append((task.seq, task.tenant))
    jobs.enqueue_reindex(session, queued, probe)
    begun.queued = len(queued)
    return begun


def progress(session: Session) -> Progress:
    counts = {
        state: n for (kind, state), n in jobs.count_unfinished(session).items() if kind == REINDEX
    }
    embedded = select(func.count()).where(Task.next_embedding_seq.is_not(None))
    newest = select(func.max(Job.seq)).where(Job.kind == REINDEX).group_by(Job.task_seq)
    left = session.execute(
        select(Job, Task)
        .join(Task, Job.task_seq == Task.seq)
        .where(Job.seq.in_(newest), Job.state.in_(("refused", "failed", "cancelled")))
        .order_by(Task.seq)
    )
    return Progress(
        queued=counts.get("queued", 0),
        running=counts.get("running", 0),
        embedded=session.scalar(embedded) or 0,
        left=[
            Left(task.id, task.tenant, task.name, job.state, (job.problem or {}).get("detail"))
            for job, task in left
        ],
    )


def _end_other_moves(session: Session, probe: str, space_id: str) -> None:
    """All at once, so that none of them is settled when its last job ends."""
    session.execute(
        update(Job)
        .where(Job.kind == REINDEX, Job.state.in_(UNFINISHED), Job.probe != probe)
        .values(state="cancelled", remaining_seconds=None, finished_at=now())
    )
    elsewhere = select(Embedding.seq).where(Embedding.space_id != space_id)
    session.execute(
        update(Task).where(Task.next_embedding_seq.in_(elsewhere)).values(next_embedding_seq=None)
    )


def _tasks(session: Session) -> Result[Any]:
    """Every tenant's tasks that are embedded or about to be, but for what was only asked about:
    columns, as there may be very many."""
    columns = (Task.seq, Task.id, Task.tenant, Task.status, Task.probe, Task.next_embedding_seq)
    return session.execute(
        select(*columns, Embedding.space_id)
        .outerjoin(Embedding, Task.embedding_seq == Embedding.seq)
        .where(
            Task.tenant != PUBLIC,
            or_(
                and_(Task.embedding_seq.is_not(None), Task.expires_at.is_(None)),
                Task.status.in_(("queued", "embedding")),
            ),
        )
        .order_by(Task.seq)
    )


def _with_images(session: Session, blobs: BlobStore) -> set[int]:
    """The tasks whose archives are all in the store."""
    stored = set(blobs.stored())
    archives = session.execute(select(Archive.task_seq, Archive.sha256)).all()
    lost = {seq for seq, sha256 in archives if sha256 not in stored}
    return {seq for seq, _ in archives} - lost
