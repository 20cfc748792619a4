"""The audit log of the caller's tenant."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import AwareDatetime

from app.api import formats
from app.api.auth import Tenant
from app.api.neighbours import TableFormat
from app.api.resources import Reading
from app.api.schemas import AuditPage, AuditRow
from app.api.tasks import Cursor
from app.store import audit

router = APIRouter(tags=["audit"])

EventLimit = Annotated[int, Query(ge=1, le=10_000)]


@router.get("/audit", response_model=AuditPage, responses={200: formats.also("csv")})
def list_audit(
    request: Request,
    tenant: Tenant,
    session: Reading,
    limit: EventLimit = 200,
    cursor: Cursor = None,
    refused: Annotated[bool, Query(description="only what was refused")] = False,
    actor: Annotated[str | None, Query(max_length=200, description="only this one's")] = None,
    since: Annotated[AwareDatetime | None, Query(description="nothing older")] = None,
    wanted: TableFormat = None,
) -> AuditPage | Response:
    """Who changed what, and what was refused to whom; newest first."""
    found, next_cursor = audit.list_events(
        session,
        tenant,
        limit=limit,
        cursor=cursor,
        refused=refused,
        actor=actor,
        since=since,
    )
    columns = list(AuditRow.model_fields)
    rows = [AuditRow(**{name: getattr(event, name) for name in columns}) for event in found]
    if formats.choose(request, wanted, ("json", "csv")) == "json":
        return AuditPage(items=rows, next_cursor=next_cursor)
    table = ([getattr(row, name) for name in columns] for row in rows)
    return formats.csv_response(columns, table, next_cursor)
