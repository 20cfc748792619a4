"""The audit log: who changed what, when and from where, and what was refused to whom."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from app.store import cursors
from app.store.tables import AuditEvent


def list_events(
    session: Session,
    tenant: str | None = None,
    *,
    limit: int,
    cursor: str | None = None,
    refused: bool = False,
    actor: str | None = None,
    since: datetime | None = None,
) -> tuple[list[AuditEvent], str | None]:
    """Of the tenant or of all and of nobody known, newest first, and the next page's cursor."""
    query = select(AuditEvent)
    if tenant is not None:
        query = query.where(AuditEvent.tenant == tenant)
    if refused:
        query = query.where(AuditEvent.problem.is_not(None))
    if actor is not None:
        query = query.where(AuditEvent.actor == actor)
    if since is not None:
        query = query.where(AuditEvent.at >= since)
    return cursors.page(session, AuditEvent, query, limit=limit, cursor=cursor)


def expire(session: Session, before: datetime) -> int:
    """Forgets what is older; how many."""
    old = delete(AuditEvent).where(AuditEvent.at < before).returning(AuditEvent.seq)
    return len(session.scalars(old).all())
