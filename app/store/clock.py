"""The database's clock, by which all machines agree; a SQLite file is one machine's, and so is its
clock."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Interval, func, literal
from sqlalchemy.orm import Session

from app.store.tables import UtcDateTime, now


def clock(session: Session, seconds: float = 0.0) -> ColumnElement[datetime]:
    """So many seconds from now."""
    delta = timedelta(seconds=seconds)
    if session.get_bind().dialect.name == "postgresql":
        return func.clock_timestamp(type_=UtcDateTime) + literal(delta, Interval)
    return literal(now() + delta, UtcDateTime)
