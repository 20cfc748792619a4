from __future__ import annotations

from datetime import timedelta

import pytest

from app.store import workers
from app.store.session import Database
from app.store.tables import Worker, now


def make_worker(worker_id: str, **fields: object) -> Worker:
    return Worker(
        id=worker_id, probe="probe", space_id="space", device="cpu", code_version="0", **fields
    )


def alive(database: Database) -> list[str]:
    with database.session(read_only=True) as session:
        return [worker.id for worker in workers.alive(session, within_seconds=10)]


def test_a_worker_is_alive_while_its_heart_beats(database: Database) -> None:
    with database.session() as session:
        workers.register(session, make_worker("a"))
        workers.register(session, make_worker("b"))
        workers.retire(session, "b")
    assert alive(database) == ["a"]
    with database.session() as session:
        assert workers.beat(session, "b")
        assert not workers.beat(session, "gone")
    assert alive(database) == ["a", "b"]


def test_a_silent_worker_is_removed_unless_its_heart_beats_again(database: Database) -> None:
    with database.session() as session:
        for name in "abc":
            workers.register(session, make_worker(name))
        for name in "ab":
            workers.retire(session, name)
    with database.session(read_only=True) as session:
        silent = workers.silent(session, for_seconds=10)
    assert silent == ["a", "b"]
    with database.session() as session:
        workers.beat(session, "b")
        for name in silent:
            workers.remove_silent(session, name, for_seconds=10)
    assert alive(database) == ["b", "c"]


@pytest.mark.engines("servers")
def test_where_the_database_has_a_clock_that_of_a_machine_does_not_count(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with database.session() as session:
        workers.register(session, make_worker("a"))
    monkeypatch.setattr("app.store.clock.now", lambda: now() + timedelta(days=1))
    assert alive(database) == ["a"]


def test_a_worker_that_comes_back_takes_its_own_place(database: Database) -> None:
    for space_id in ("old", "new"):
        with database.session() as session:
            worker = make_worker("a")
            worker.space_id = space_id
            workers.register(session, worker)
    with database.session(read_only=True) as session:
        (found,) = workers.alive(session, within_seconds=10)
        assert found.space_id == "new"


def test_weights_are_those_of_any_worker_that_is_up_and_has_looked(database: Database) -> None:
    def at_hand() -> frozenset[str] | None:
        with database.session(read_only=True) as session:
            return workers.weights_at_hand(session)

    with database.session() as session:
        for name in "abc":
            workers.register(session, make_worker(name))
    assert at_hand() is None
    with database.session() as session:
        workers.tell_weights(session, "a", ["x", "y"])
        workers.tell_weights(session, "b", [])
        workers.tell_weights(session, "gone", ["z"])
    assert at_hand() == {"x", "y"}
    with database.session() as session:
        workers.retire(session, "a")
    assert at_hand() == frozenset()
    with database.session() as session:
        workers.retire(session, "b")
    assert at_hand() is None
