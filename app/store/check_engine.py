"""Whether the job engine's own rows and our jobs tell of the same work.

The engine is asked by SQL: to start it would be to take up its work.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    MetaData,
    Table,
    Text,
    create_engine,
    inspect,
    make_url,
    select,
    update,
)
from sqlalchemy.orm import Session

from app.store.findings import REPAIR, Finding
from app.store.session import portions
from app.store.spaces import REINDEX, UNFINISHED
from app.store.tables import Job, Outbox, now

SETTLED_SECONDS = 600.0
"""So much apart may the two stand while work goes on."""
_SCHEMA = "dbos"
_OPEN = ("PENDING", "ENQUEUED", "DELAYED")


def of_engine(
    session: Session, engine_url: str, checked: Counter[str], *, repair: bool
) -> Iterator[Finding]:
    url = make_url(engine_url)
    schema = _SCHEMA if url.get_backend_name() == "postgresql" else None
    if schema is None and not Path(url.database or "").exists():
        return  # no worker has been here yet
    engine = create_engine(url)
    try:
        with engine.begin() as connection:
            if inspect(connection).has_table("workflow_status", schema):
                yield from _compared(session, connection, schema, checked, repair=repair)
    finally:
        engine.dispose()


def _compared(
    session: Session,
    connection: Connection,
    schema: str | None,
    checked: Counter[str],
    *,
    repair: bool,
) -> Iterator[Finding]:
    work = Table(
        "workflow_status",
        MetaData(schema=schema),
        Column("workflow_uuid", Text, primary_key=True),
        Column("status", Text),
        *(Column(name, BigInteger) for name in ("updated_at", "completed_at")),
    )
    known = dict(connection.execute(select(work.c.workflow_uuid, work.c.status)).all())
    checked["engine records"] += len(known)
    before = now() - timedelta(seconds=SETTLED_SECONDS)
    unsent = select(Outbox.job_id)
    unfinished = select(Job.id).where(Job.state.in_(UNFINISHED))
    begun = (Job.kind != REINDEX) | (Job.state != "queued") | (Job.attempts > 0)
    settled = unfinished.where(Job.updated_at < before, begun, Job.id.not_in(unsent))
    lost = [job_id for job_id in session.scalars(settled) if known.get(job_id) not in _OPEN]
    if lost:
        if repair:
            waits = {"state": "queued", "handed_over": False}
            for some in portions(lost):
                session.execute(update(Job).where(Job.id.in_(some)).values(waits))
            session.add_all(Outbox(job_id=job_id) for job_id in lost)
        yield Finding(
            "job",
            f"{len(lost)} jobs are unfinished and the job engine does not know them.",
            f"{REPAIR}: they wait for their turn again.",
            mended=repair,
        )
    ours = set(session.scalars(unfinished))
    open_before = select(work.c.workflow_uuid).where(
        work.c.status.in_(_OPEN), work.c.updated_at < before.timestamp() * 1000
    )
    void = [each for each in connection.scalars(open_before).all() if each not in ours]
    if void:
        if repair:
            ms = int(now().timestamp() * 1000)
            end = update(work).values(status="CANCELLED", updated_at=ms, completed_at=ms)
            for some in portions(void):
                connection.execute(end.where(work.c.workflow_uuid.in_(some)))
        yield Finding(
            "job",
            f"The job engine is still to do {len(void)} jobs that are gone, or have ended.",
            f"{REPAIR}, or start a worker: it drops them.",
            mended=repair,
        )
