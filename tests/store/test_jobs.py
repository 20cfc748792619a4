from __future__ import annotations

import pytest
from sqlalchemy import func, select

from app.errors import Conflict, NotFound
from app.store import embeddings, jobs, tasks
from app.store.intake import Intake
from app.store.jobs import EndState, Start
from app.store.session import Database
from app.store.tables import Embedding, Outbox
from tests.store.samples import (
    ARCHIVE,
    INTAKE,
    MORE,
    accept_task,
    make_embedding,
    ready_task,
)

PROBLEM = {"type": "/problems/too-few-classes", "status": 422, "detail": "One class."}


def start(database: Database, job_id: str, max_attempts: int = 3) -> Start:
    with database.session() as session:
        started = jobs.start_job(session, job_id, max_attempts)
    assert started is not None
    return started


def accept(database: Database, **fields: object) -> tuple[str, str]:
    with database.session() as session:
        task, job = accept_task(session, **fields)  # type: ignore[arg-type]
        return task.id, job.id


def states(database: Database, task_id: str, job_id: str) -> tuple[str, str]:
    with database.session(read_only=True) as session:
        task = tasks.get_task(session, "acme", task_id)
        return task.status, jobs.get_job(session, "acme", job_id).state


def in_outbox(database: Database) -> list[str]:
    with database.session(read_only=True) as session:
        return list(session.scalars(select(Outbox.job_id).order_by(Outbox.seq)))


def test_accepting_a_task_leaves_its_job_in_the_outbox(database: Database) -> None:
    job_ids = [accept(database)[1] for _ in range(2)]
    assert in_outbox(database) == job_ids


def test_a_start_carries_all_that_a_worker_needs(database: Database) -> None:
    task_id, job_id = accept(database)
    started = start(database, job_id)
    with database.session(read_only=True) as session:
        accepted_at = jobs.get_job(session, "acme", job_id).created_at
    assert started == Start(
        job_id=job_id,
        kind="embed_task",
        token=1,
        attempt=1,
        accepted_at=accepted_at,
        traceparent=None,
        tenant="acme",
        task_id=task_id,
        task_version=1,
        label_kind="auto",
        probe="probe",
        source=None,
        archives=(ARCHIVE,),
    )
    assert states(database, task_id, job_id) == ("embedding", "running")


def test_success_makes_the_task_ready(database: Database) -> None:
    task_id, job_id = accept(database)
    started = start(database, job_id)
    with database.session() as session:
        row = embeddings.add(session, "acme", "recipe", make_embedding())
        jobs.finish_job(session, job_id, started.token, "succeeded", intake=INTAKE, embedding=row)
    with database.session(read_only=True) as session:
        task = tasks.get_task(session, "acme", task_id)
        job = jobs.get_job(session, "acme", job_id)
        assert (task.status, task.label_kind, task.n_images) == ("ready", "single_label", 40)
        assert task.embedding is not None
        assert task.intake_files == INTAKE.files
        assert job.state == "succeeded"
        assert job.finished_at is not None
        assert job.finished_at.tzinfo is not None


def test_a_refusal_stands_on_the_task_and_the_job(database: Database) -> None:
    task_id, job_id = accept(database)
    started = start(database, job_id)
    with database.session() as session:
        jobs.finish_job(session, job_id, started.token, "refused", problem=PROBLEM)
    assert states(database, task_id, job_id) == ("refused", "refused")
    with database.session(read_only=True) as session:
        assert tasks.get_task(session, "acme", task_id).problem == PROBLEM
        assert jobs.get_job(session, "acme", job_id).problem == PROBLEM


def test_a_refused_task_keeps_what_its_intake_found(database: Database) -> None:
    task_id, job_id = accept(database)
    started = start(database, job_id)
    found = Intake("auto", None, None, {"used": 0}, [{"path": "cat/1.png", "status": "skipped"}])
    with database.session() as session:
        jobs.finish_job(session, job_id, started.token, "refused", problem=PROBLEM, intake=found)
    with database.session(read_only=True) as session:
        task = tasks.get_task(session, "acme", task_id)
        assert (task.intake_summary, task.intake_files) == (found.summary, found.files)
        assert (task.n_images, task.n_classes, task.label_kind) == (None, None, "auto")


def test_a_success_without_an_embedding_is_a_mistake_of_the_caller(database: Database) -> None:
    _, job_id = accept(database)
    started = start(database, job_id)
    with database.session() as session, pytest.raises(ValueError, match="embedding"):
        jobs.finish_job(session, job_id, started.token, "succeeded")


def test_a_newer_start_fences_the_older_worker_off(database: Database) -> None:
    task_id, job_id = accept(database, archive=None)
    old = start(database, job_id)
    new = start(database, job_id)
    assert new.token == old.token + 1
    with database.session() as session:
        for write in (
            lambda: jobs.report_progress(session, job_id, old.token, "fisher", 1, 2, None),
            lambda: tasks.attach_archive(session, job_id, old.token, ARCHIVE),
            lambda: jobs.finish_job(session, job_id, old.token, "failed", problem=PROBLEM),
            lambda: jobs.release_job(session, job_id, old.token, counted=False),
        ):
            with pytest.raises(Conflict) as caught:
                write()
            assert caught.value.code == "stale-token"
    assert states(database, task_id, job_id) == ("embedding", "running")
    with database.session() as session:
        jobs.report_progress(session, job_id, new.token, "fisher", 1, 2, 3.5)
    with database.session(read_only=True) as session:
        job = jobs.get_job(session, "acme", job_id)
        assert (job.phase, job.done, job.total, job.remaining_seconds) == ("fisher", 1, 2, 3.5)


def test_an_ended_job_is_neither_started_nor_ended_again(database: Database) -> None:
    task_id, job_id = accept(database)
    started = start(database, job_id)
    with database.session() as session:
        jobs.finish_job(session, job_id, started.token, "failed", problem=PROBLEM)
    with database.session() as session:
        assert jobs.start_job(session, job_id, 3) is None
        with pytest.raises(Conflict, match="no longer holds"):
            jobs.finish_job(session, job_id, started.token, "cancelled")
    assert states(database, task_id, job_id) == ("failed", "failed")


def test_a_job_that_kills_its_workers_ends_as_failed(database: Database) -> None:
    task_id, job_id = accept(database)
    for _ in range(2):
        start(database, job_id, max_attempts=2)
    with database.session() as session:
        assert jobs.start_job(session, job_id, 2) is None
    assert states(database, task_id, job_id) == ("failed", "failed")
    with database.session(read_only=True) as session:
        problem = jobs.get_job(session, "acme", job_id).problem
    assert problem is not None
    assert problem["type"] == "/problems/job-kills-workers"
    assert "2 workers" in problem["detail"]


def test_a_released_job_is_queued_again_and_not_counted(database: Database) -> None:
    task_id, job_id = accept(database)
    for _ in range(5):
        started = start(database, job_id, max_attempts=1)
        with database.session() as session:
            jobs.release_job(session, job_id, started.token, counted=False)
        assert states(database, task_id, job_id) == ("queued", "queued")
    assert start(database, job_id, max_attempts=1).token == 6


def test_a_job_released_after_a_failure_counts_its_attempts(database: Database) -> None:
    _, job_id = accept(database)
    for attempt in (1, 2):
        started = start(database, job_id, max_attempts=2)
        assert started.attempt == attempt
        with database.session() as session:
            jobs.release_job(session, job_id, started.token, counted=True)
    with database.session() as session:
        assert jobs.start_job(session, job_id, max_attempts=2) is None


def test_cancelling_a_queued_job_ends_it_and_its_task_at_once(database: Database) -> None:
    task_id, job_id = accept(database)
    with database.session() as session:
        assert jobs.request_cancel(session, "acme", job_id).state == "cancelled"
    assert states(database, task_id, job_id) == ("cancelled", "cancelled")
    with database.session() as session:
        assert jobs.start_job(session, job_id, 3) is None
    assert in_outbox(database) == []


def test_cancelling_a_running_job_is_told_to_its_worker(database: Database) -> None:
    task_id, job_id = accept(database)
    started = start(database, job_id)

    def report() -> bool:
        with database.session() as session:
            return jobs.report_progress(session, job_id, started.token, "fisher", 1, 9, None)

    assert report() is False
    with database.session() as session:
        assert jobs.request_cancel(session, "acme", job_id).state == "running"
    assert report() is True
    with database.session() as session:
        jobs.finish_job(session, job_id, started.token, "cancelled")
    assert states(database, task_id, job_id) == ("cancelled", "cancelled")


def test_a_cancelled_job_whose_worker_died_is_not_started_again(database: Database) -> None:
    task_id, job_id = accept(database)
    start(database, job_id)
    with database.session() as session:
        jobs.request_cancel(session, "acme", job_id)
    with database.session() as session:
        assert jobs.start_job(session, job_id, 3) is None
    assert states(database, task_id, job_id) == ("cancelled", "cancelled")


def test_cancelling_an_ended_job_changes_nothing(database: Database) -> None:
    with database.session() as session:
        ready_task(session, make_embedding())
    with database.session() as session:
        (job,), _ = jobs.list_jobs(session, "acme", limit=10)
        assert jobs.request_cancel(session, "acme", job.id).state == "succeeded"


def test_more_images_replace_the_embedding_and_drop_the_old_one(database: Database) -> None:
    with database.session() as session:
        task = ready_task(session, make_embedding(1))
        job = tasks.add_images(session, task, MORE)
        assert (task.version, task.status) == (2, "queued")
    started = start(database, job.id)
    assert started.archives == (ARCHIVE, MORE)
    with database.session() as session:
        row = embeddings.add(session, "acme", "recipe 2", make_embedding(2))
        jobs.finish_job(session, job.id, started.token, "succeeded", intake=INTAKE, embedding=row)
    with database.session(read_only=True) as session:
        task = tasks.get_task(session, "acme", task.id)
        assert (task.version, task.status, task.embedding_seq) == (2, "ready", row.seq)
        assert session.scalars(select(Embedding.seq)).all() == [row.seq]


@pytest.mark.parametrize("state", ["refused", "failed"])
def test_more_images_that_came_to_nothing_leave_the_task_ready_and_say_why(
    database: Database, state: EndState
) -> None:
    with database.session() as session:
        task = ready_task(session, make_embedding())
        before = task.embedding_seq
        job = tasks.add_images(session, task, MORE)
    started = start(database, job.id)
    with database.session() as session:
        jobs.finish_job(session, job.id, started.token, state, problem=PROBLEM)
    with database.session(read_only=True) as session:
        task = tasks.get_task(session, "acme", task.id)
        assert (task.version, task.status, task.problem) == (1, "ready", PROBLEM)
        assert task.embedding_seq == before
        assert [archive.sha256 for archive in task.archives] == [ARCHIVE.sha256]
        assert jobs.get_job(session, "acme", job.id).problem == PROBLEM


def test_the_problem_of_a_version_before_goes_when_the_next_is_queued(database: Database) -> None:
    with database.session() as session:
        task = ready_task(session, make_embedding())
        job = tasks.add_images(session, task, MORE)
    started = start(database, job.id)
    with database.session() as session:
        jobs.finish_job(session, job.id, started.token, "failed", problem=PROBLEM)
    with database.session() as session:
        task = tasks.get_own_task(session, "acme", task.id)
        again = tasks.add_images(session, task, MORE)
        assert task.problem is None
        jobs.request_cancel(session, "acme", again.id)
        assert (task.status, task.problem) == ("ready", None)


def test_a_new_version_is_read_as_the_first_was_asked_to_be(database: Database) -> None:
    with database.session() as session:
        task = ready_task(session, make_embedding())
        assert (task.label_kind_asked, task.label_kind) == ("auto", "single_label")
        job = tasks.add_images(session, task, MORE)
    assert start(database, job.id).label_kind == "auto"


@pytest.mark.parametrize("state", ["refused", "failed", "cancelled"])
def test_images_for_a_task_that_was_never_embedded_are_a_conflict(
    database: Database, state: EndState
) -> None:
    task_id, job_id = accept(database, archive=None)
    started = start(database, job_id)
    with database.session() as session:
        jobs.finish_job(session, job_id, started.token, state)
    with database.session() as session:
        task = tasks.get_own_task(session, "acme", task_id)
        with pytest.raises(Conflict, match="Send a new task") as caught:
            tasks.add_images(session, task, MORE)
    assert caught.value.code == "task-not-embedded"
    with database.session(read_only=True) as session:
        task = tasks.get_task(session, "acme", task_id)
        assert (task.status, task.version, task.archives) == (state, 1, [])


def test_images_for_a_task_under_way_are_a_conflict(database: Database) -> None:
    with database.session() as session:
        task, _ = accept_task(session)
        with pytest.raises(Conflict) as caught:
            tasks.add_images(session, task, MORE)
    assert caught.value.code == "task-busy"


def test_a_fetched_archive_becomes_the_tasks(database: Database) -> None:
    _, job_id = accept(database, archive=None)
    started = start(database, job_id)
    assert (started.source, started.archives) == ("file:///data/cats.zip", ())
    with database.session() as session:
        tasks.attach_archive(session, job_id, started.token, ARCHIVE)
    assert start(database, job_id).archives == (ARCHIVE,)


def test_jobs_of_another_tenant_do_not_exist(database: Database) -> None:
    _, job_id = accept(database)
    with database.session() as session:
        assert jobs.list_jobs(session, "rival", limit=10) == ([], None)
        with pytest.raises(NotFound):
            jobs.get_job(session, "rival", job_id)
        with pytest.raises(NotFound):
            jobs.request_cancel(session, "rival", job_id)


def test_jobs_are_listed_by_state_and_task(database: Database) -> None:
    first_task, first = accept(database)
    _, second = accept(database)
    start(database, second)
    with database.session(read_only=True) as session:
        running, _ = jobs.list_jobs(session, "acme", limit=10, state="running")
        of_first, _ = jobs.list_jobs(session, "acme", limit=10, task_id=first_task)
    assert [job.id for job in running] == [second]
    assert [job.id for job in of_first] == [first]


def test_the_outbox_forgets_the_jobs_of_a_deleted_task(database: Database) -> None:
    task_id, _ = accept(database)
    with database.session() as session:
        tasks.delete_task(session, tasks.get_own_task(session, "acme", task_id))
        assert session.scalar(select(func.count()).select_from(Outbox)) == 0
