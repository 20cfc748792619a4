"""For whoever runs the service: is it well, what waits, what fills up."""

from __future__ import annotations

import shutil

from fastapi import Request, Response

import app
from app.api.auth import Tenant
from app.api.pages.frame import page, page_router
from app.api.resources import Reached, Reading
from app.store import archives, jobs, spaces, workers

router = page_router()


@router.get("/operation")
def get_operation(
    request: Request,
    reached: Reached,
    tenant: Tenant,  # noqa: ARG001 - who may look at all
    session: Reading,
) -> Response:
    behind: dict[str, int] = {}
    for (space_id, _), count in reached.indexes.behind(session).items():
        behind[space_id] = max(count, behind.get(space_id, 0))
    return page(
        request,
        "operation.html",
        version=app.__version__,
        workers=workers.alive(session, workers.FRESH_SECONDS),
        counts=_by_kind(jobs.count_unfinished(session)),
        oldest_wait=max(jobs.oldest_wait_seconds(session).values(), default=0.0),
        spaces=spaces.count_tasks(session),
        behind=behind,
        stored=archives.stored(session),
        disk=shutil.disk_usage(reached.settings.data_dir.absolute()),
    )


def _by_kind(counts: dict[tuple[str, str], int]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for (kind, state), count in sorted(counts.items()):
        found.setdefault(kind, {})[state] = count
    return found
