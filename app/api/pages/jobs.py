"""Jobs: what waits, runs, and has ended."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Request, Response

from app.api import jobs, tasks
from app.api.auth import Tenant
from app.api.pages.frame import page, page_router
from app.api.resources import Reading
from app.api.schemas import JobState
from app.store import tasks as store

router = page_router()

SHOWN = 50


@router.get("/jobs")
def get_jobs(
    request: Request,
    tenant: Tenant,
    session: Reading,
    cursor: tasks.Cursor = None,
    state: Annotated[JobState | None, Query()] = None,
) -> Response:
    listed = jobs.list_jobs(tenant, session, limit=SHOWN, cursor=cursor, state=state)
    return page(
        request,
        "jobs.html",
        listed=listed,
        names=store.names(session, tenant, {job.task_id for job in listed.items}),
        asked={"state": state},
    )
