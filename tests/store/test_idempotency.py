from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import func, select

from app.errors import Conflict, InvalidRequest
from app.store import idempotency
from app.store.idempotency import Answer
from app.store.session import Database
from app.store.tables import IdempotencyKey, Task, now
from tests.store.samples import accept_task

ANSWER = Answer(202, {"id": "1", "job_id": "2"}, "/v1/tasks/1")


def test_a_repetition_is_answered_as_the_first_request(database: Database) -> None:
    with database.session() as session:
        assert idempotency.recall(session, "acme", "key", "body") is None
        idempotency.remember(session, "acme", "key", "body", ANSWER)
    with database.session(read_only=True) as session:
        assert idempotency.recall(session, "acme", "key", "body") == ANSWER
        assert idempotency.recall(session, "rival", "key", "body") is None


def test_a_key_with_another_body_is_refused(database: Database) -> None:
    with database.session() as session:
        idempotency.remember(session, "acme", "key", "body", ANSWER)
        with pytest.raises(InvalidRequest) as caught:
            idempotency.recall(session, "acme", "key", "other body")
    assert caught.value.code == "idempotency-key-reused"


def test_the_slower_of_two_equal_requests_does_nothing(database: Database) -> None:
    with database.session() as session:
        idempotency.remember(session, "acme", "key", "body", ANSWER)
    with pytest.raises(Conflict) as caught, database.session() as session:
        accept_task(session)
        idempotency.remember(session, "acme", "key", "body", ANSWER)
    assert caught.value.code == "idempotency-key-in-use"
    with database.session(read_only=True) as session:
        assert session.scalar(select(func.count()).select_from(Task)) == 0


@pytest.mark.engines("servers")
def test_a_machine_whose_clock_is_wrong_forgets_nothing_too_early(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for days in (-2, 2):
        monkeypatch.setattr("app.store.clock.now", lambda days=days: now() + timedelta(days=days))
        with database.session() as session:
            idempotency.remember(session, "acme", str(days), "body", ANSWER)
            assert idempotency.expire(session, hours=24) == 0
        monkeypatch.undo()
        with database.session() as session:
            assert idempotency.expire(session, hours=24) == 0


def test_old_answers_are_forgotten(database: Database) -> None:
    with database.session() as session:
        for key in ("old", "new"):
            idempotency.remember(session, "acme", key, "body", ANSWER)
        old = session.get_one(IdempotencyKey, ("acme", "old"))
        old.created_at = now() - timedelta(hours=25)
    with database.session() as session:
        assert idempotency.expire(session, hours=24) == 1
        assert idempotency.recall(session, "acme", "old", "body") is None
        assert idempotency.recall(session, "acme", "new", "body") == ANSWER
