from __future__ import annotations

from app.store import usage
from app.store.session import Database
from app.store.tables import now
from tests.store.samples import accept_task, make_embedding, ready_task


def test_tasks_are_counted_by_status_but_for_others_and_those_only_asked_about(
    database: Database,
) -> None:
    with database.session() as session:
        for name in ("one", "two"):
            accept_task(session, name=name)
        ready_task(session, make_embedding(), name="three")
        accept_task(session, tenant="rival")
        asked_about, _ = accept_task(session, name="asked about")
        asked_about.expires_at = now()
    with database.session(read_only=True) as session:
        assert usage.tasks_by_status(session, "acme") == {"queued": 2, "ready": 1}
        assert usage.tasks_by_status(session, "nobody") == {}
