"""Tasks: created with their job, read by their tenant, deleted with what only they need."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime

from sqlalchemy import ColumnElement, delete, or_, select
from sqlalchemy.orm import Session, contains_eager

from app.errors import Conflict, Forbidden, NotFound
from app.priorities import Priority
from app.store import archives, cards, cursors, embeddings, estimators, jobs, spaces
from app.store.blobs import Blob
from app.store.spaces import UNFINISHED
from app.store.tables import (
    PUBLIC,
    Archive,
    Embedding,
    Finetune,
    FinetuneFile,
    Job,
    Outbox,
    Prediction,
    Task,
    TaskTag,
    now,
)

EMBED_TASK = "embed_task"


def create_task(
    session: Session,
    tenant: str,
    *,
    name: str,
    tags: Iterable[str],
    label_kind: str,
    probe: str,
    archive: Blob | None = None,
    source: str | None = None,
    priority: Priority = "normal",
) -> tuple[Task, Job]:
    """The task, its job and the job's outbox row, all in the caller's commit."""
    task = Task(
        tenant=tenant,
        name=name,
        tags=_tags(tags),
        label_kind=label_kind,
        label_kind_asked=label_kind,
        probe=probe,
        status="queued",
        version=1,
        source=source,
    )
    if archive is not None:
        archives.append(task, archive)
    session.add(task)
    return task, jobs.enqueue(session, task, EMBED_TASK, priority)


def add_images(session: Session, task: Task, archive: Blob, priority: Priority = "normal") -> Job:
    """A new version of the task with one more archive.

    Conflict while a job of it is under way, and where no version of it was embedded. A move to
    another space leaves the task out: what it embedded, or was to, are not all the images any more.
    """
    session.refresh(task, with_for_update=True)
    if jobs.is_busy(session, task):
        raise Conflict(
            "task-busy",
            f"The task {task.id!r} is being embedded.",
            "Wait for its job to end, or cancel it, then send the images again.",
        )
    if task.embedding_seq is None:
        raise Conflict(
            "task-not-embedded",
            f"The task {task.id!r} is {task.status}: it has no embedding to add images to.",
            "Send a new task with all the images.",
            task_status=task.status,
        )
    if not task.archives:
        raise Conflict(
            "task-without-images",
            f"The images of the task {task.id!r} are not stored, so none can be added to them.",
            "Send a new task with all the images.",
        )
    jobs.stop_reindex(session, task)
    task.version += 1
    task.status = "queued"
    task.problem = None
    archives.append(task, archive)
    return jobs.enqueue(session, task, EMBED_TASK, priority)


def forget_images(session: Session, before: datetime) -> list[str]:
    """Of embedded tasks that nobody changed since then and no job is at: their archives' digests,
    for `archives.delete_unneeded` after the commit. What was made of the images stays."""
    at_work = select(Job.task_seq).where(Job.state.in_(UNFINISHED))
    settled = select(Task.seq).where(
        Task.embedding_seq.is_not(None), Task.updated_at < before, Task.seq.not_in(at_work)
    )
    gone = delete(Archive).where(Archive.task_seq.in_(settled)).returning(Archive.sha256)
    return archives.unneeded(session, session.scalars(gone).all())


def attach_archive(session: Session, job_id: str, token: int, archive: Blob) -> None:
    """What a worker fetched from the task's `source` becomes the task's archive."""
    archives.append(jobs.hold(session, job_id, token).task, archive)


def readable_by(tenant: str) -> ColumnElement[bool]:
    """The tenant's own tasks and the reference library's."""
    return or_(Task.tenant == tenant, Task.tenant == PUBLIC)


def seen_in(tenant: str, space_id: str) -> tuple[ColumnElement[bool], ...]:
    """Of tasks joined with their embeddings: those that the tenant sees among others of a space.

    A task whose next version is under way stands with the embedding it has.
    """
    asked_about = Task.expires_at.is_not(None)  # by somebody, for a while
    return Embedding.space_id == space_id, ~asked_about, readable_by(tenant)


def get_task(session: Session, tenant: str, task_id: str) -> Task:
    """A task of the tenant's own or of the reference library; NotFound for any other."""
    task = session.scalar(select(Task).where(Task.id == task_id, readable_by(tenant)))
    if task is None:
        raise NotFound(
            "unknown-task",
            f"There is no task {task_id!r}.",
            "Take the id from the answer that accepted the task, or from the list of tasks.",
        )
    return task


def get_own_task(session: Session, tenant: str, task_id: str) -> Task:
    """A task that the tenant may change; Forbidden for one of the reference library."""
    task = get_task(session, tenant, task_id)
    if task.tenant != tenant or task.tenant == PUBLIC:
        raise Forbidden(
            "task-is-public",
            f"The task {task_id!r} belongs to the reference library.",
            "Upload a task of your own to change.",
        )
    return task


def list_tasks(
    session: Session,
    tenant: str,
    *,
    limit: int,
    cursor: str | None = None,
    id_prefix: str | None = None,
    status: str | None = None,
    tag: str | None = None,
    query: str | None = None,
) -> tuple[list[Task], str | None]:
    """The tenant's own tasks, newest first, and the cursor of the next page.

    `query` is part of a name, in any case. Tasks that are only asked about are not listed.
    """
    found = select(Task).where(Task.tenant == tenant, Task.expires_at.is_(None))
    found = found.where(cursors.begins(Task.id, id_prefix))
    if status is not None:
        found = found.where(Task.status == status)
    if tag is not None:
        found = found.where(Task.tags.any(TaskTag.tag == tag))
    if query is not None:
        found = found.where(Task.name.icontains(query, autoescape=True))
    return cursors.page(session, Task, found, limit=limit, cursor=cursor)


def list_embedded(
    session: Session,
    tenant: str,
    *,
    limit: int,
    cursor: str | None = None,
    tag: str | None = None,
    space_id: str | None = None,
) -> tuple[list[Task], str | None]:
    """The same of those that have an embedding, with it: also while their next version is made."""
    found = (
        select(Task)
        .join(Task.embedding)
        .options(contains_eager(Task.embedding))
        .where(Task.tenant == tenant, Task.expires_at.is_(None))
    )
    if tag is not None:
        found = found.where(Task.tags.any(TaskTag.tag == tag))
    if space_id is not None:
        found = found.where(Embedding.space_id == space_id)
    return cursors.page(session, Task, found, limit=limit, cursor=cursor)


def names(session: Session, tenant: str, ids: Collection[str]) -> dict[str, str]:
    """Of those tasks that the tenant may read."""
    asked = select(Task.id, Task.name).where(Task.id.in_(ids), readable_by(tenant))
    found = session.execute(asked)
    return {row.id: row.name for row in found}


def update_task(
    session: Session, task: Task, *, name: str | None = None, tags: Iterable[str] | None = None
) -> Task:
    """None leaves a field as it is."""
    if name is not None:
        task.name = name
    if tags is not None:
        task.tags = _tags(tags)
    task.updated_at = now()
    session.flush()
    return task


def delete_task(session: Session, task: Task) -> list[str]:
    """Removes the task, its jobs and outcomes, and its embedding if no other task has it.

    A worker that holds a job of it is stopped by its next report. Returns the digests of blobs that
    nothing needs any more: for `archives.delete_unneeded`, after the commit. Conflict where the
    model of one of its runs is a candidate.
    """
    cards.require_no_candidate(session, task)
    digests = {archive.sha256 for archive in task.archives}
    for sha256 in (Prediction.sha256, FinetuneFile.sha256):
        digests |= set(session.scalars(select(sha256).join(Finetune).filter_by(task_seq=task.seq)))
    seqs = task.embedding_seq, task.next_embedding_seq
    job_ids = list(session.scalars(select(Job.id).where(Job.task_seq == task.seq)))
    # Jobs first, as everywhere: two that lock in another order could wait for each other.
    session.execute(delete(Job).where(Job.task_seq == task.seq))
    session.execute(delete(Outbox).where(Outbox.job_id.in_(job_ids)))
    session.delete(task)
    session.flush()
    estimators.forget_outcomes(session, task.tenant, task.id)
    embeddings.drop_unused(session, *seqs)
    spaces.settle(session, task.tenant)
    return archives.unneeded(session, digests)


def _tags(tags: Iterable[str]) -> list[TaskTag]:
    return [TaskTag(tag=tag) for tag in sorted(set(tags))]
