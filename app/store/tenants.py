"""Tenants: who has something here, and the end of all that one has."""

from __future__ import annotations

from sqlalchemy import ColumnElement, delete, func, select
from sqlalchemy.orm import Session

from app.errors import NotFound
from app.store import archives, embeddings, estimators
from app.store.session import portions
from app.store.tables import (
    PUBLIC,
    Archive,
    Base,
    Embedding,
    Finetune,
    FinetuneFile,
    Job,
    Outbox,
    Outcome,
    Prediction,
    Task,
    TenantSettings,
)

_OWNED = [table for table in Base.metadata.sorted_tables if "tenant" in table.c]


def count(session: Session) -> list[dict[str, object]]:
    """Of every tenant with rows in any table, how much there is; by name. Tasks are those that it
    lists, bytes all that it takes up."""
    names: set[str] = set()
    for table in _OWNED:
        named = select(table.c.tenant).where(table.c.tenant.is_not(None))  # strangers have none
        names.update(session.scalars(named.distinct()))
    tasks = _by_tenant(session, Task, Task.expires_at.is_(None))
    runs, outcomes = _by_tenant(session, Finetune), _by_tenant(session, Outcome)
    sizes = dict(
        session.execute(
            select(Task.tenant, func.sum(Archive.size_bytes)).join(Archive).group_by(Task.tenant)
        ).all()
    )
    return [
        {
            "tenant": name,
            "tasks": tasks.get(name, 0),
            "archive_bytes": int(sizes.get(name) or 0),
            "finetunes": runs.get(name, 0),
            "outcomes": outcomes.get(name, 0),
        }
        for name in sorted(names - {PUBLIC})
    ]


def forget(session: Session, tenant: str) -> list[str]:
    """Deletes every row that is the tenant's, keys among them. Digests of blobs that nothing needs
    any more: for `archives.delete_unneeded`, after the commit."""
    if tenant not in {each["tenant"] for each in count(session)}:
        raise NotFound(
            "unknown-tenant",
            f"Nothing here belongs to a tenant {tenant!r}.",
            "`task2vec tenants` names them.",
        )
    share_outcomes(session, tenant, shares=False)
    digests = {
        *session.scalars(select(Archive.sha256).join(Task).where(Task.tenant == tenant)),
        *session.scalars(select(Prediction.sha256).where(Prediction.tenant == tenant)),
        *session.scalars(select(FinetuneFile.sha256).join(Finetune).filter_by(tenant=tenant)),
    }
    job_ids = list(session.scalars(select(Job.id).where(Job.tenant == tenant)))
    # Jobs first, as everywhere: two that lock in another order could wait for each other.
    session.execute(delete(Job).where(Job.tenant == tenant))
    for some in portions(job_ids):
        session.execute(delete(Outbox).where(Outbox.job_id.in_(some)))
    for table in reversed(_OWNED):
        if table.name != Embedding.__tablename__:
            session.execute(delete(table).where(table.c.tenant == tenant))
    embeddings.remove(session, Embedding.tenant == tenant)
    return archives.unneeded(session, digests)


def settings_of(session: Session, tenant: str) -> TenantSettings:
    """To be changed; made where there are none."""
    row = session.get(TenantSettings, tenant, with_for_update=True)
    if row is None:
        row = TenantSettings(tenant=tenant, share_outcomes=False)
        session.add(row)
    return row


def shares_outcomes(session: Session, tenant: str) -> bool:
    return tenant in estimators.sources(session, PUBLIC)


def share_outcomes(session: Session, tenant: str, *, shares: bool) -> None:
    """Whether the shared estimator may learn from them. Where they are taken back, what learnt from
    them serves no more from the commit on."""
    row = settings_of(session, tenant)
    if row.share_outcomes and not shares:
        estimators.withdraw(session, PUBLIC, "A tenant took its outcomes back.")
    row.share_outcomes = shares
    session.flush()


def _by_tenant(
    session: Session, kind: type[Task | Finetune | Outcome], *only: ColumnElement[bool]
) -> dict[str, int]:
    counts = select(kind.tenant, func.count()).where(*only).group_by(kind.tenant)
    return dict(session.execute(counts).all())
