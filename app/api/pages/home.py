"""The first page: send images in, and the tasks there are."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Request, Response

from app.api import tasks
from app.api.auth import Tenant
from app.api.pages.frame import page, page_router
from app.api.resources import Reached, Reading
from app.api.schemas import Tag, TaskStatus
from app.store import workers

router = page_router()

SHOWN = 50


@router.get("/")
def get_home(
    request: Request,
    reached: Reached,
    tenant: Tenant,
    session: Reading,
    cursor: tasks.Cursor = None,
    status: Annotated[TaskStatus | None, Query()] = None,
    tag: Annotated[Tag | None, Query()] = None,
    q: Annotated[str, Query(max_length=200)] = "",
    library: bool = False,
) -> Response:
    listed = tasks.list_tasks(
        tenant,
        session,
        limit=SHOWN,
        cursor=cursor,
        status=status,
        tag=tag,
        q=q or None,
        library=library,
    )
    return page(
        request,
        "home.html",
        listed=listed,
        asked={"status": status, "tag": tag, "q": q, "library": library},
        first=cursor is None,
        has_worker=bool(workers.alive(session, workers.FRESH_SECONDS)),
        max_upload_bytes=reached.settings.max_upload_bytes,
    )
