from __future__ import annotations

from datetime import timedelta

from app.store import audit
from app.store.session import Database
from app.store.tables import AuditEvent, now

DAY = timedelta(days=1)


def write(database: Database, tenant: str | None = "acme", days_ago: int = 0) -> None:
    with database.session() as session:
        event = AuditEvent(
            tenant=tenant, action="GET /v1/keys", status=403, problem="scope-missing"
        )
        event.at = now() - days_ago * DAY
        session.add(event)


def tenants(database: Database, tenant: str | None = None) -> list[str | None]:
    with database.session(read_only=True) as session:
        found, _ = audit.list_events(session, tenant, limit=10)
        return [event.tenant for event in found]


def test_a_tenant_sees_its_own_rows_and_the_operator_those_of_strangers_too(
    database: Database,
) -> None:
    for tenant in ("acme", None, "other"):
        write(database, tenant)
    assert tenants(database, "acme") == ["acme"]
    assert tenants(database) == ["other", None, "acme"]


def test_only_what_is_older_is_forgotten(database: Database) -> None:
    write(database, "old", days_ago=3)
    write(database, "young", days_ago=1)
    with database.session() as session:
        assert audit.expire(session, now() - 2 * DAY) == 1
    assert tenants(database) == ["young"]
