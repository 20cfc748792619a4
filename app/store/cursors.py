"""Pages of rows, newest first, or of what a row holds; an opaque cursor says where the next page
begins."""

from __future__ import annotations

import base64
import binascii
from typing import TypeVar

from sqlalchemy import ColumnElement, Select, true
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.errors import InvalidRequest
from app.store.tables import AuditEvent, Finetune, Job, Outcome, Task

RowT = TypeVar("RowT", Task, Job, Outcome, Finetune, AuditEvent)


def page(
    session: Session,
    table: type[RowT],
    query: Select[RowT],
    *,
    limit: int,
    cursor: str | None,
) -> tuple[list[RowT], str | None]:
    """At most `limit` rows, and the cursor of the next page where there is one."""
    if cursor is not None:
        query = query.where(table.seq < decode(table.__tablename__, cursor))
    rows = list(session.scalars(query.order_by(table.seq.desc()).limit(limit + 1)))
    if len(rows) <= limit:
        return rows, None
    return rows[:limit], encode(table.__tablename__, rows[limit - 1].seq)


def begins(column: InstrumentedAttribute[str], beginning: str | None) -> ColumnElement[bool]:
    """Of ids that begin so; all of them, where nothing is asked."""
    return true() if beginning is None else column.startswith(beginning, autoescape=True)


def encode(table: str, seq: int) -> str:
    """`table` is what the pages are of, in the words of a caller; `decode` refuses any other's."""
    return base64.urlsafe_b64encode(f"{table}:{seq}".encode()).decode().rstrip("=")


def decode(table: str, cursor: str) -> int:
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        seq = int(raw.removeprefix(f"{table}:".encode()))
    except (ValueError, binascii.Error):
        seq = -1
    if not 0 <= seq < 2**63 or encode(table, seq) != cursor:
        raise InvalidRequest(
            "cursor-invalid",
            f"The cursor is not one that this service gave out for its {table}.",
            "Take `next_cursor` from this list's last answer unchanged, or leave the cursor out.",
        )
    return seq
