"""Who is to be called when a job ends: asked for with it, tried until it is heard, or for a day.

A row stands for a call. It is due once its job has ended, and says itself how far it came.
"""

from __future__ import annotations

import base64
import json
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from app.errors import Conflict
from app.store import tenants
from app.store.jobs import ENDED
from app.store.tables import Callback, Job, TenantSettings, now

GIVEN_UP = timedelta(days=1)
FIRST_PAUSE, LONGEST_PAUSE = timedelta(seconds=5), timedelta(hours=1)
_SLOWER = 4
SIGNED_WITH = "whsec_"  # as Standard Webhooks has it


@dataclass(frozen=True, slots=True)
class Call:
    """`id` is the same at every try; `secret` is the tenant's."""

    seq: int
    id: str
    url: str
    secret: str
    body: bytes


def require_secret(session: Session, tenant: str) -> None:
    """Conflict where the tenant has none."""
    if _secret(session, tenant) is None:
        raise Conflict(
            "callback-secret-missing",
            "There is no secret that calls would be signed with.",
            "POST /v1/callback-secret makes one; give it to the receiver, which is to check it.",
        )


def ask(session: Session, job: Job, url: str) -> None:
    """In the unit of work that accepts the job; Conflict where the tenant has no secret."""
    require_secret(session, job.tenant)
    session.add(Callback(tenant=job.tenant, job=job, url=url, state="pending", attempts=0))
    session.flush()


def renew_secret(session: Session, tenant: str) -> str:
    """A new one, from the commit on instead of the one before."""
    secret = SIGNED_WITH + base64.b64encode(secrets.token_bytes(32)).decode()
    tenants.settings_of(session, tenant).callback_secret = secret
    return secret


def of_job(session: Session, job: Job) -> Callback | None:
    return session.scalar(select(Callback).where(Callback.job_seq == job.seq))


def due(session: Session, limit: int) -> list[Call]:
    """Those to be tried now, the oldest first."""
    query = (
        select(Callback, TenantSettings.callback_secret)
        .join(Job, Callback.job_seq == Job.seq)
        .join(TenantSettings, TenantSettings.tenant == Callback.tenant)
        .where(
            Callback.state == "pending",
            Job.state.in_(ENDED),
            or_(Callback.due_at.is_(None), Callback.due_at <= now()),
        )
        .order_by(Callback.seq)
        .limit(limit)
    )
    return [
        Call(row.seq, row.id, row.url, secret, _body(row.job))
        for row, secret in session.execute(query)
        if secret is not None
    ]


def note(session: Session, seq: int, problem: str | None) -> str | None:
    """What came of a try: None where it was heard. The call's state; None where it is gone."""
    row = session.get(Callback, seq, with_for_update=True, populate_existing=True)
    if row is None:
        return None
    row.attempts += 1
    row.problem = problem
    if problem is None:
        row.state = "delivered"
    elif now() - _ended(row.job) > GIVEN_UP:
        row.state = "failed"
    else:
        pause = FIRST_PAUSE * _SLOWER ** min(row.attempts - 1, 10)
        row.due_at = now() + min(pause, LONGEST_PAUSE)
    return row.state


def _secret(session: Session, tenant: str) -> str | None:
    row = session.get(TenantSettings, tenant)
    return None if row is None else row.callback_secret


def _ended(job: Job) -> datetime:
    return job.finished_at or job.updated_at


def _body(job: Job) -> bytes:
    """The same at every try; names and results are to be asked for with a key."""
    told = {
        "type": f"job.{job.state}",
        "timestamp": _ended(job).isoformat(),
        "data": {
            "job_id": job.id,
            "kind": job.kind,
            "task_id": job.task.id,
            "state": job.state,
            "problem": job.problem,
        },
    }
    return json.dumps(told, separators=(",", ":")).encode()
