from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import func, select

from app.priorities import Priority
from app.store import jobs, tasks, turns
from app.store.session import Database
from app.store.tables import Job, Outbox
from tests.store.samples import accept_task

pytestmark = pytest.mark.engines("embedded", "servers")


def accept(database: Database, tenant: str, count: int = 1, priority: Priority = "normal") -> None:
    """Each named by its tenant, priority, and number among those."""
    with database.session() as session:
        for number in range(count):
            _, job = accept_task(session, tenant=tenant, name=f"{tenant} {priority} {number}")
            job.priority = turns.rank_of(priority)


def take(database: Database, places: int = 1, most_of_a_tenant: int | None = None) -> list[str]:
    with database.session() as session:
        taken = turns.take(session, places, most_of_a_tenant)
        return [job.task.name for job in taken]


def end_all(database: Database) -> None:
    """What has a place leaves it, as a job that ended."""
    with database.session() as session:
        for job in session.scalars(select(Job).where(Job.handed_over)).all():
            started = jobs.start_job(session, job.id, max_attempts=3)
            assert started is not None
            jobs.finish_job(session, job.id, started.token, "failed", problem={})


def in_order(database: Database, count: int) -> list[str]:
    """The next that have their turn, one after the other."""
    names = []
    for _ in range(count):
        names += take(database)
        end_all(database)
    return names


def test_one_upload_of_a_tenant_starts_next_after_a_thousand_of_another(
    database: Database,
) -> None:
    accept(database, "many", 1000)
    assert take(database) == ["many normal 0"]
    accept(database, "one")
    end_all(database)
    assert in_order(database, 3) == ["one normal 0", "many normal 1", "many normal 2"]


def test_tenants_take_turns_whoever_sent_more(database: Database) -> None:
    accept(database, "a", 5)
    accept(database, "b", 3)
    accept(database, "c", 2)
    order = [name[0] for name in in_order(database, 10)]
    assert order == ["a", "b", "c", "a", "b", "c", "a", "b", "a", "a"]


def test_a_tenant_that_sends_one_after_the_other_does_not_starve_others(
    database: Database,
) -> None:
    accept(database, "many", 4)
    names = []
    for _ in range(6):
        accept(database, "eager", 1)
        names += in_order(database, 1)
    assert [name.split()[0] for name in names] == ["many", "eager"] * 3


def test_the_urgent_jobs_of_a_tenant_go_before_its_others_and_not_before_anothers_turn(
    database: Database,
) -> None:
    accept(database, "a", 1, "low")
    accept(database, "a", 1, "normal")
    accept(database, "b", 1, "low")
    accept(database, "a", 2, "high")
    assert in_order(database, 5) == [
        "a high 0",
        "b low 0",
        "a high 1",
        "a normal 0",
        "a low 0",
    ]


def test_a_tenant_has_no_more_places_than_it_may(database: Database) -> None:
    accept(database, "a", 5)
    assert take(database, places=4, most_of_a_tenant=2) == ["a normal 0", "a normal 1"]
    accept(database, "b", 1)
    assert take(database, places=4, most_of_a_tenant=2) == ["b normal 0"]
    assert take(database, places=4, most_of_a_tenant=2) == []
    with database.session(read_only=True) as session:
        assert not turns.is_one_due(session, 4, 2)
        assert not turns.is_one_due(session, 3, None)
        assert turns.is_one_due(session, 4, 3)


def test_queues_have_places_of_their_own(database: Database) -> None:
    accept(database, "a", 2)
    with database.session() as session:
        task, _ = accept_task(session, tenant="a", name="trained on")
        jobs.enqueue(session, task, turns.FINETUNE)
    assert take(database) == ["a normal 0", "trained on"]


def test_a_job_that_is_to_be_tried_again_leaves_its_place_and_one_handed_back_keeps_it(
    database: Database,
) -> None:
    accept(database, "a", 3)
    for counted, next_one in ((False, []), (True, ["a normal 1"])):
        with database.session() as session:
            job = session.scalars(select(Job).order_by(Job.seq)).first()
            assert job is not None
            if not counted:
                turns.take(session, 1, None)
            started = jobs.start_job(session, job.id, max_attempts=9)
            assert started is not None
            jobs.release_job(session, job.id, started.token, counted=counted)
        assert take(database) == next_one


def test_a_job_taken_back_or_deleted_while_it_waits_has_no_turn(database: Database) -> None:
    accept(database, "a", 3)
    with database.session() as session:
        first, second, _ = session.scalars(select(Job).order_by(Job.seq)).all()
        jobs.request_cancel(session, "a", first.id)
        tasks.delete_task(session, second.task)
    assert in_order(database, 1) == ["a normal 2"]
    with database.session(read_only=True) as session:
        assert session.scalar(select(func.count()).select_from(Outbox)) == 0
        assert session.scalar(select(func.count()).select_from(Job).where(Job.handed_over)) == 0


@pytest.mark.engines("servers")
def test_jobs_taken_back_and_deleted_while_turns_are_taken_lock_nobody_out(
    database: Database,
) -> None:
    accept(database, "a", 60)
    with database.session(read_only=True) as session:
        job_ids = session.scalars(select(Job.id)).all()
    together = threading.Barrier(3)

    def take_turns() -> None:
        together.wait()
        for _ in range(60):
            take(database, places=1000)

    def cancel() -> None:
        together.wait()
        for job_id in job_ids[::2]:
            with database.session() as session:
                jobs.request_cancel(session, "a", job_id)

    def delete() -> None:
        together.wait()
        for job_id in job_ids[1::2]:
            with database.session() as session:
                tasks.delete_task(session, jobs.get_job(session, "a", job_id).task)

    with ThreadPoolExecutor(3) as threads:
        for done in [threads.submit(work) for work in (take_turns, cancel, delete)]:
            done.result(60)
    with database.session(read_only=True) as session:
        assert session.scalar(select(func.count()).select_from(Outbox)) == 0
        assert session.scalar(select(func.count()).select_from(Job).where(Job.handed_over)) == 0
