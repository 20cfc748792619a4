"""What a POST with an `Idempotency-Key` answered: its repetition answers the same, no more."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import delete
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.errors import Conflict, InvalidRequest
from app.store.clock import clock
from app.store.tables import IdempotencyKey


@dataclass(frozen=True, slots=True)
class Answer:
    """`told_once` stands in the body of the first answer, and is never kept."""

    status: int
    body: dict[str, Any]
    location: str | None = None
    told_once: dict[str, Any] = field(default_factory=dict)


def recall(session: Session, tenant: str, key: str, fingerprint: str) -> Answer | None:
    """What was answered; InvalidRequest where the key came with another request before."""
    row = session.get(IdempotencyKey, (tenant, key))
    if row is None:
        return None
    if row.fingerprint != fingerprint:
        raise InvalidRequest(
            "idempotency-key-reused",
            "This Idempotency-Key came with another request before.",
            "Send a fresh key with every new request, and the same key only to repeat one.",
        )
    return Answer(row.status, row.body, row.location)


def remember(session: Session, tenant: str, key: str, fingerprint: str, answer: Answer) -> None:
    """In the commit of what the request did; Conflict where the same key was faster."""
    row = IdempotencyKey(
        tenant=tenant,
        key=key,
        fingerprint=fingerprint,
        status=answer.status,
        body=answer.body,
        location=answer.location,
        created_at=clock(session),  # machines whose clocks are wrong forget nothing too early
    )
    try:
        with session.begin_nested():
            session.add(row)
    except IntegrityError as error:
        raise Conflict(
            "idempotency-key-in-use",
            "A request with this Idempotency-Key was accepted a moment ago.",
            "Send the request again: it will be answered as the first one was.",
        ) from error


def expire(session: Session, hours: float) -> int:
    """Forgets answers that are older; how many."""
    old = IdempotencyKey.created_at < clock(session, -3600 * hours)
    return len(
        session.scalars(delete(IdempotencyKey).where(old).returning(IdempotencyKey.key)).all()
    )
