"""What a tenant may have here: before anything is received, and once more when it is accepted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy.orm import Session

from app.api.auth import Tenant
from app.api.resources import Reached, Resources
from app.settings import Settings
from app.store import usage
from app.store.blobs import Blob
from app.store.usage import Quotas


def quotas_of(settings: Settings) -> Quotas:
    """None on a server that asks for no keys: its one user is the operator."""
    if not settings.keys_required:
        return Quotas()
    return Quotas(
        settings.max_tenant_stored_bytes,
        settings.max_tenant_tasks,
        settings.max_tenant_queued_jobs,
    )


def require_room(
    reached: Resources,
    session: Session,
    tenant: str,
    *,
    archive: Blob | None = None,
    tasks: int = 0,
) -> None:
    """In the unit of work that accepts a job: what `usage.require_room` raises."""
    quotas = quotas_of(reached.settings)
    most = reached.settings.max_queued_jobs
    usage.require_room(session, tenant, quotas, most, archive=archive, tasks=tasks)


@dataclass(frozen=True, slots=True)
class Room:
    """For bytes that are on their way."""

    used: int
    limit: int

    def require(self, n_bytes: int) -> None:
        if self.used + n_bytes > self.limit:
            raise usage.no_room_for_bytes(self.used, self.limit)


def room_for_bytes(request: Request, reached: Reached, tenant: Tenant) -> Room | None:
    """The same refusals as above, before anything is received; None: there is room for all.

    A request that may be a repeated one is let in: what it asks for may be there already.
    """
    if "idempotency-key" in request.headers:
        return None
    quotas = quotas_of(reached.settings)
    with reached.database.session(read_only=True) as session:
        usage.require_short_queue(session, reached.settings.max_queued_jobs)
        if quotas == Quotas():
            return None
        used = usage.of_tenant(session, tenant)
    if quotas.queued_jobs is not None and used.queued_jobs >= quotas.queued_jobs:
        raise usage.too_many_queued(used.queued_jobs, quotas.queued_jobs)
    if quotas.stored_bytes is None:
        return None
    return Room(used.stored_bytes, quotas.stored_bytes)


ByteRoom = Annotated[Room | None, Depends(room_for_bytes)]
