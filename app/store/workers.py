"""Workers that are up, by their heartbeat, which the database's clock tells."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import CursorResult, delete, select, update
from sqlalchemy.orm import Session

from app.store.clock import clock
from app.store.tables import Worker

FRESH_SECONDS = 15.0
"""A worker beats every two seconds, also while it computes."""
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


def register(session: Session, worker: Worker) -> None:
    """A worker of the same id, gone or not, gives way."""
    session.merge(worker)
    session.flush()
    beat(session, worker.id)


def beat(session: Session, worker_id: str) -> bool:
    """Whether the worker still counts: one that was silent for too long is taken for dead."""
    mine = update(Worker).where(Worker.id == worker_id)
    result = session.execute(mine.values(heartbeat_at=clock(session)))
    return isinstance(result, CursorResult) and result.rowcount == 1


def retire(session: Session, worker_id: str) -> None:
    """As one whose heart has not beaten for long: nobody counts on it, others may take over from
    it."""
    session.execute(update(Worker).where(Worker.id == worker_id).values(heartbeat_at=_LONG_AGO))


def alive(session: Session, within_seconds: float) -> list[Worker]:
    """Those whose heart beat that recently, the longest-serving first."""
    recent = Worker.heartbeat_at > clock(session, -within_seconds)
    return list(session.scalars(select(Worker).where(recent).order_by(Worker.started_at)))


def tell_weights(session: Session, worker_id: str, keys: list[str]) -> None:
    """Those of the candidates whose weights it has; nothing is written where that is known."""
    worker = session.get(Worker, worker_id)
    if worker is not None and worker.weights != keys:
        worker.weights = keys


def weights_at_hand(session: Session) -> frozenset[str] | None:
    """What any worker that is up has; None where none is that has looked."""
    told = [each.weights for each in alive(session, FRESH_SECONDS) if each.weights is not None]
    return frozenset().union(*told) if told else None


def silent(session: Session, for_seconds: float) -> list[str]:
    """Ids of those whose heart has not."""
    long_ago = Worker.heartbeat_at <= clock(session, -for_seconds)
    return list(session.scalars(select(Worker.id).where(long_ago)))


def remove_silent(session: Session, worker_id: str, for_seconds: float) -> None:
    """Unless its heart beat again meanwhile."""
    long_ago = Worker.heartbeat_at <= clock(session, -for_seconds)
    session.execute(delete(Worker).where(Worker.id == worker_id, long_ago))
