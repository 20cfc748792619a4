"""The map of tasks, to zoom into."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Request, Response

from app.api import atlas
from app.api.auth import Tenant
from app.api.pages.frame import page, page_router
from app.api.resources import Reading
from app.errors import NotFound

router = page_router()


@router.get("/atlas")
def get_map(
    request: Request,
    tenant: Tenant,
    session: Reading,
    space_id: Annotated[str | None, Query(max_length=64)] = None,
) -> Response:
    """The points themselves are fetched by the page, some thousands at a time."""
    try:
        drawn = atlas.get_atlas(request, tenant, session, limit=1, space_id=space_id, wanted="json")
    except NotFound:
        drawn = None
    return page(request, "atlas.html", drawn=drawn, space_id=space_id)
