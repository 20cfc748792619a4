"""Whose job is next: the tenant whose turn was longest ago, and its most urgent job.

An accepted job waits in the outbox until a worker has a place for it, and only then goes to the
engine: what arrives meanwhile can still come before it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from sqlalchemy import Select, delete, func, select
from sqlalchemy.orm import Session

from app.priorities import PRIORITIES, Priority
from app.store.session import hold
from app.store.tables import Job, Outbox, Turn

FINETUNE = "finetune"
SCORE = "score"

JOBS = "jobs"
_QUEUES = {FINETUNE: "long-jobs", SCORE: "scores"}
"""By kind of job, where it is not JOBS: what takes hours holds up nothing that takes minutes, and
neither what takes seconds."""
QUEUES = (JOBS, *_QUEUES.values())


def queue_of(kind: str) -> str:
    return _QUEUES.get(kind, JOBS)


def rank_of(priority: Priority) -> int:
    """As `Job.priority` has it: the smaller goes first."""
    return PRIORITIES.index(priority)


def priority_of(job: Job) -> Priority:
    return PRIORITIES[job.priority]


def is_one_due(session: Session, places: int, most_of_a_tenant: int | None) -> bool:
    """Whether `take` would take any."""
    queries = _next(_held(session), places, most_of_a_tenant)
    return any(session.scalar(query) is not None for query in queries)


def take(session: Session, places: int, most_of_a_tenant: int | None) -> list[Job]:
    """The jobs whose turn it is, in order: to be handed to the engine before this is committed.

    In each of the engine's queues as many as there are places left, of which a tenant has
    `most_of_a_tenant` at most; a place is taken until its job ends.
    """
    hold(session, "turns")
    taken: list[Job] = []
    while job := _take_one(session, places, most_of_a_tenant):
        taken.append(job)
    return taken


def _take_one(session: Session, places: int, most_of_a_tenant: int | None) -> Job | None:
    for query in _next(_held(session), places, most_of_a_tenant):
        # Locked is one that its user takes back, or deletes, at this moment: let them.
        job = session.scalar(query.with_for_update(of=Job, skip_locked=True))
        if job is not None:
            job.handed_over = True
            session.execute(delete(Outbox).where(Outbox.job_id == job.id))
            queue = queue_of(job.kind)
            latest = session.scalar(select(func.max(Turn.taken)).where(Turn.queue == queue))
            session.merge(Turn(queue=queue, tenant=job.tenant, taken=(latest or 0) + 1))
            session.flush()
            return job
    return None


def _held(session: Session) -> dict[str, Counter[str]]:
    """By queue, how many places each tenant has."""
    held: dict[str, Counter[str]] = {queue: Counter() for queue in QUEUES}
    counted = select(Job.kind, Job.tenant, func.count()).where(Job.handed_over)
    for kind, tenant, count in session.execute(counted.group_by(Job.kind, Job.tenant)):
        held[queue_of(kind)][tenant] += count
    return held


def _next(
    held: dict[str, Counter[str]], places: int, most_of_a_tenant: int | None
) -> Iterator[Select[Job]]:
    """Of each queue that has a place left, a query for the job whose turn it is."""
    most = places if most_of_a_tenant is None else most_of_a_tenant
    for queue, of_tenants in held.items():
        if of_tenants.total() >= places:
            continue
        full = [tenant for tenant, count in of_tenants.items() if count >= most]
        special = [kind for kind, name in _QUEUES.items() if name == queue]
        yield (
            select(Job)
            .join(Outbox, Outbox.job_id == Job.id)
            .outerjoin(Turn, (Turn.queue == queue) & (Turn.tenant == Job.tenant))
            .where(
                Job.state == "queued",
                Job.kind.in_(special) if special else Job.kind.not_in(_QUEUES),
                Job.tenant.not_in(full),
            )
            .order_by(func.coalesce(Turn.taken, 0), Job.priority, Job.seq)
            .limit(1)
        )
