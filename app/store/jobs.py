"""Jobs: accepted with their outbox row, fenced by a token while a worker holds them, ended once.

Jobs of ASIDE rest on a ready task and leave it as it is: a `finetune` trains a candidate on its
images, a `score` looks at them through candidates, a `predict` classifies others with the model of
a run.

A `reindex` job embeds a ready task anew in another space. It has no outbox row: a worker takes it
up when nothing else is to be done, and the task stays as it is until `spaces.settle`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import and_, delete, func, insert, or_, select, update
from sqlalchemy.orm import Session

from app import tracing
from app.errors import Conflict, NotFound, Task2VecError
from app.priorities import Priority
from app.store import archives, cursors, embeddings, spaces, tallies
from app.store.blobs import Blob
from app.store.intake import Intake
from app.store.spaces import REINDEX, UNFINISHED
from app.store.tables import Embedding, Job, Outbox, Task, new_id, now
from app.store.turns import FINETUNE, SCORE, rank_of

EndState = Literal["succeeded", "refused", "failed", "cancelled"]
ENDED = ("succeeded", "refused", "failed", "cancelled")
PREDICT = "predict"
UNHURRIED = (FINETUNE, SCORE)
"""Kinds of job that take minutes or hours, and have queues of their own."""
ASIDE = (*UNHURRIED, PREDICT)
"""Kinds of job that embed nothing."""
_BESIDE = (REINDEX, *ASIDE)
"""Kinds of job that say nothing of their task's state."""


@dataclass(frozen=True, slots=True)
class Start:
    """All that a worker needs; `token` must come with everything it writes."""

    job_id: str
    kind: str
    token: int
    attempt: int  # from 1
    accepted_at: datetime
    traceparent: str | None
    tenant: str
    task_id: str
    task_version: int
    label_kind: str  # as asked: auto, single_label or multi_label
    probe: str
    source: str | None
    archives: tuple[Blob, ...]  # empty: to be fetched from `source`, then tasks.attach_archive


def enqueue(session: Session, task: Task, kind: str, priority: Priority = "normal") -> Job:
    """A queued job of the task, and the outbox row in which it waits for its turn."""
    job = Job(
        id=new_id(),
        tenant=task.tenant,
        kind=kind,
        task=task,
        state="queued",
        traceparent=tracing.traceparent(),
        priority=rank_of(priority),
    )
    session.add_all([job, Outbox(job_id=job.id)])
    session.flush()
    return job


def enqueue_reindex(session: Session, tasks: Iterable[tuple[int, str]], probe: str) -> None:
    """For each (seq, tenant) of a task a job of the background."""
    rows = [
        {"tenant": tenant, "kind": REINDEX, "task_seq": seq, "state": "queued", "probe": probe}
        for seq, tenant in tasks
    ]
    if rows:
        session.execute(insert(Job), rows)


def get_job(session: Session, tenant: str, job_id: str) -> Job:
    job = _locate(session, job_id)
    if job is None or job.tenant != tenant:
        raise NotFound(
            "unknown-job",
            f"There is no job {job_id!r}.",
            "Take the id from the answer that accepted the job; jobs go with their task.",
        )
    return job


def count_unfinished(session: Session) -> dict[tuple[str, str], int]:
    """How many jobs of all tenants stand in each (kind, state) that is no end."""
    counted = select(Job.kind, Job.state, func.count()).where(Job.state.in_(UNFINISHED))
    rows = session.execute(counted.group_by(Job.kind, Job.state))
    return {(kind, state): count for kind, state, count in rows}


def oldest_wait_seconds(session: Session) -> dict[str, float]:
    """By kind, how long the job that waits longest has waited, where any does."""
    oldest = select(Job.kind, func.min(Job.created_at)).where(Job.state == "queued")
    rows = session.execute(oldest.group_by(Job.kind))
    return {kind: max(0.0, (now() - since).total_seconds()) for kind, since in rows}


def count_untold(session: Session) -> int:
    """Accepted jobs that wait for their turn, in the outbox."""
    return session.scalars(select(func.count()).select_from(Outbox)).one()


def list_jobs(
    session: Session,
    tenant: str,
    *,
    limit: int,
    cursor: str | None = None,
    id_prefix: str | None = None,
    state: str | None = None,
    task_id: str | None = None,
) -> tuple[list[Job], str | None]:
    """Newest first, and the cursor of the next page."""
    query = select(Job).where(Job.tenant == tenant, cursors.begins(Job.id, id_prefix))
    if state is not None:
        query = query.where(Job.state == state)
    if task_id is not None:
        query = query.where(Job.task.has(Task.id == task_id))
    return cursors.page(session, Job, query, limit=limit, cursor=cursor)


def is_busy(session: Session, task: Task) -> bool:
    """Whether a job that embeds the task is queued or running, other than in the background."""
    own = (Job.task_seq == task.seq, Job.kind.not_in(_BESIDE), Job.state.in_(UNFINISHED))
    return session.scalar(select(Job.seq).where(*own).limit(1)) is not None


def embedded_archives(session: Session, task: Task) -> list[str]:
    """Digests of the archives that the task's present embedding is of: a version that is still on
    its way may yet be refused."""
    version = task.version - 1 if is_busy(session, task) else task.version
    return [archive.sha256 for archive in task.archives if archive.position < version]


def next_in_background(session: Session) -> str | None:
    """The oldest reindex job that was never begun, where nothing runs and nobody else waits."""
    waiting = (Job.state == "queued", Job.kind == REINDEX, Job.attempts == 0)
    job_id = session.scalar(select(Job.id).where(*waiting).order_by(Job.seq).limit(1))
    if job_id is None:
        return None
    first = and_(
        or_(Job.state == "running", and_(Job.state == "queued", Job.kind != REINDEX)),
        Job.kind.not_in(UNHURRIED),
    )
    return None if session.scalar(select(Job.seq).where(first).limit(1)) is not None else job_id


def unfinished(session: Session) -> list[tuple[str, str]]:
    """Id and kind of all that a worker has begun or was told of, the oldest first.

    Others wait in the outbox, or for `next_in_background`.
    """
    begun = or_(Job.handed_over, Job.state != "queued", Job.attempts > 0)
    query = select(Job.id, Job.kind).where(Job.state.in_(UNFINISHED), begun).order_by(Job.seq)
    return [(job_id, kind) for job_id, kind in session.execute(query)]


def stop_reindex(session: Session, task: Task) -> None:
    """The task leaves the move to another space; a worker that embeds it finds its token stale."""
    if task.next_embedding_seq is not None:
        before, task.next_embedding_seq = task.next_embedding_seq, None
        session.flush()
        embeddings.drop_unused(session, before)
    moving = (Job.task_seq == task.seq, Job.kind == REINDEX, Job.state.in_(UNFINISHED))
    for job in session.scalars(select(Job).where(*moving).with_for_update()).all():
        _end(session, job, "cancelled")


def request_cancel(session: Session, tenant: str, job_id: str) -> Job:
    """A queued job ends at once; a running one when its worker next reports; an ended one stays."""
    job = get_job(session, tenant, job_id)
    session.refresh(job, with_for_update=True)
    if job.state == "queued":
        _end(session, job, "cancelled")
    elif job.state == "running":
        job.cancel_requested = True
    return job


def start_job(session: Session, job_id: str, max_attempts: int) -> Start | None:
    """Takes the job over from whoever held it; None where nothing is left to do.

    A job that was started `max_attempts` times without an end is ended as failed.
    """
    job = _locate(session, job_id, lock=True)
    if job is None or job.state in ENDED:
        return None
    if job.cancel_requested:
        _end(session, job, "cancelled")
        return None
    if job.attempts >= max_attempts:
        _end(session, job, "failed", problem=_poison(job.attempts).problem())
        return None
    if job.state == "running":  # whoever held it is gone
        tallies.add(session, "retry", job.kind, "worker")
    if job.started_at is None:
        job.started_at = now()
        waited = job.started_at - job.created_at
        tallies.add(session, "wait", job.kind, seconds=waited.total_seconds())
    job.state = "running"
    job.handed_over = True
    job.attempts += 1
    job.token += 1
    task = job.task
    if job.kind not in _BESIDE:
        task.status = "embedding"
    return Start(
        job_id=job.id,
        kind=job.kind,
        token=job.token,
        attempt=job.attempts,
        accepted_at=job.created_at,
        traceparent=job.traceparent,
        tenant=job.tenant,
        task_id=task.id,
        task_version=task.version,
        label_kind=task.label_kind_asked,
        probe=job.probe or task.probe,
        source=task.source,
        archives=tuple(Blob(archive.sha256, archive.size_bytes) for archive in task.archives),
    )


def hold(session: Session, job_id: str, token: int) -> Job:
    """The running job, locked; Conflict `stale-token` where another start took it or it is gone."""
    job = _locate(session, job_id, lock=True)
    if job is None or job.token != token or job.state != "running":
        raise Conflict(
            "stale-token",
            f"This worker no longer holds the job {job_id!r}.",
            "Drop the work: the job was started anew, has ended, or went with its task.",
        )
    return job


def report_progress(
    session: Session,
    job_id: str,
    token: int,
    phase: str,
    done: int,
    total: int,
    remaining_seconds: float | None,
) -> bool:
    """Whether the job should stop because its user took it back."""
    job = hold(session, job_id, token)
    job.phase, job.done, job.total = phase, done, total
    job.remaining_seconds = remaining_seconds
    return job.cancel_requested


def release_job(session: Session, job_id: str, token: int, *, counted: bool) -> None:
    """Puts the job back into the queue; `counted`: as an attempt that came to nothing.

    Counted, it is to wait for a while and leaves its place to others; else the engine has it still.
    """
    job = hold(session, job_id, token)
    job.state = "queued"
    job.handed_over = not counted
    if job.kind not in _BESIDE:
        job.task.status = "queued"
    if not counted:
        job.attempts -= 1


def release_all(session: Session) -> None:
    """Puts running jobs back into the queue, of a database whose workers are gone: no attempt of
    theirs came to nothing."""
    running = Job.state == "running"
    embedding = select(Job.task_seq).where(running, Job.kind.not_in(_BESIDE))
    session.execute(update(Task).where(Task.seq.in_(embedding)).values(status="queued"))
    session.execute(update(Job).where(running).values(state="queued", attempts=Job.attempts - 1))


def finish_job(
    session: Session,
    job_id: str,
    token: int,
    state: EndState,
    *,
    problem: dict[str, Any] | None = None,
    intake: Intake | None = None,
    embedding: Embedding | None = None,
) -> None:
    """Ends the job and brings its task to where that leaves it; what embeds succeeds with an
    embedding."""
    job = hold(session, job_id, token)
    if (state == "succeeded" and job.kind not in ASIDE) != (embedding is not None):
        raise ValueError("an embedding belongs to success, and to nothing else")
    _end(session, job, state, problem=problem, intake=intake, embedding=embedding)


def expire(session: Session, before: datetime) -> int:
    """Forgets jobs that ended earlier than that and that nothing hangs on; how many.

    On those that moved a task to another space hangs the move of all of its tenant's.
    """
    moving = select(Task.seq).where(Task.next_embedding_seq.is_not(None))
    ended = (
        Job.kind.not_in(ASIDE),
        Job.state.in_(ENDED),
        Job.finished_at < before,
        or_(Job.kind != REINDEX, Job.task_seq.not_in(moving)),
    )
    gone = session.scalars(delete(Job).where(*ended).returning(Job.seq))
    return len(gone.all())


def _locate(session: Session, job_id: str, *, lock: bool = False) -> Job | None:
    query = select(Job).where(Job.id == job_id)
    if lock:
        query = query.with_for_update().execution_options(populate_existing=True)
    return session.scalar(query)


def _end(
    session: Session,
    job: Job,
    state: EndState,
    *,
    problem: dict[str, Any] | None = None,
    intake: Intake | None = None,
    embedding: Embedding | None = None,
) -> None:
    job.state = state
    job.handed_over = False
    job.problem = problem
    job.remaining_seconds = None
    job.finished_at = now()
    if job.started_at is not None:
        took = job.finished_at - job.started_at
        tallies.add(session, "run", job.kind, state, took.total_seconds())
    session.execute(delete(Outbox).where(Outbox.job_id == job.id))

    task = job.task
    if job.kind in ASIDE:
        return
    if job.kind == REINDEX:
        _end_reindex(session, task, problem, intake, embedding)
        return
    if state != "succeeded" and task.embedding_seq is not None:
        # More images came to nothing: what was embedded before still stands, beside the reason.
        archives.drop_latest(task)
        task.status = "ready"
        task.problem = problem
        return
    task.status = "ready" if state == "succeeded" else state
    task.problem = problem
    _note(task, intake)
    if embedding is not None:
        before = task.embedding_seq
        task.embedding = embedding
        session.flush()
        embeddings.drop_unused(session, before)


def _end_reindex(
    session: Session,
    task: Task,
    problem: dict[str, Any] | None,
    intake: Intake | None,
    embedding: Embedding | None,
) -> None:
    if embedding is not None:
        _note(task, intake)
        before, task.next_embedding_seq = task.next_embedding_seq, embedding.seq
        session.flush()
        embeddings.drop_unused(session, before)
    elif problem is not None:  # left behind, and not by its user's wish
        task.problem = problem
    spaces.settle(session, task.tenant)


def _note(task: Task, intake: Intake | None) -> None:
    if intake is not None:
        task.label_kind = intake.label_kind
        task.n_images = intake.n_images
        task.n_classes = intake.n_classes
        task.intake_summary = intake.summary
        task.intake_files = intake.files


def _poison(attempts: int) -> Task2VecError:
    return Task2VecError(
        "job-kills-workers",
        f"The job was started {attempts} times, and {attempts} workers died of it.",
        "Look at the worker's log, give it more memory or fewer images, and ask again.",
    )
