"""Archives on their way: begun by a client that puts the parts, completed as a task, forgotten."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from app.errors import NotFound
from app.store.tables import Upload


def find(session: Session, tenant: str, asked: dict[str, Any]) -> Upload | None:
    """The tenant's newest that was asked for in the same words and has not become a task."""
    open_ones = select(Upload).where(
        Upload.tenant == tenant, Upload.sha256 == asked["sha256"], Upload.task_id.is_(None)
    )
    found = session.scalars(open_ones.order_by(Upload.seq.desc()))
    return next((upload for upload in found if upload.asked == asked), None)


def create(
    session: Session, tenant: str, upload_id: str, asked: dict[str, Any], multipart: str
) -> Upload:
    row = Upload(
        id=upload_id,
        tenant=tenant,
        asked=asked,
        sha256=asked["sha256"],
        size_bytes=asked["size_bytes"],
        multipart=multipart,
    )
    session.add(row)
    session.flush()
    return row


def get(session: Session, tenant: str, upload_id: str, *, lock: bool = False) -> Upload:
    """`lock`: until the unit of work ends, nobody else completes or forgets it."""
    query = select(Upload).where(Upload.id == upload_id, Upload.tenant == tenant)
    row = session.scalar(query.with_for_update() if lock else query)
    if row is None:
        raise NotFound(
            "unknown-upload",
            f"There is no upload {upload_id!r}.",
            "Begin one by POST /v1/uploads; what is not completed within a day is forgotten.",
        )
    return row


def expire(session: Session, before: datetime) -> None:
    """Forgets those that were begun earlier, completed or not; `BlobStore.sweep` does it there."""
    session.execute(delete(Upload).where(Upload.created_at < before))
