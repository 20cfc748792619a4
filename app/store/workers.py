"""Workers that are up, by their heartbeat."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from app.store.tables import Worker, now


def register(session: Session, worker: Worker) -> None:
    """A worker of the same id, gone or not, gives way."""
    session.merge(worker)


def beat(session: Session, worker_id: str) -> None:
    session.execute(update(Worker).where(Worker.id == worker_id).values(heartbeat_at=now()))


def alive(session: Session, within_seconds: float) -> list[Worker]:
    """Those whose heart beat that recently, the longest-serving first."""
    recent = Worker.heartbeat_at > now() - timedelta(seconds=within_seconds)
    return list(session.scalars(select(Worker).where(recent).order_by(Worker.started_at)))


def remove(session: Session, worker_id: str) -> None:
    session.execute(delete(Worker).where(Worker.id == worker_id))
