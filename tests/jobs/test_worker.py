from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from sqlalchemy import select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from app.errors import Conflict
from app.jobs import housekeeping, lock, worker
from app.jobs.engine import DbosEngine
from app.jobs.housekeeping import housekeep, reconcile
from app.jobs.worker import dispatch
from app.settings import Settings
from app.store import archives, embeddings, jobs, tasks, workers
from app.store.blobs import BlobStore
from app.store.session import Database
from app.store.tables import PUBLIC, AuditEvent, Embedding, Job, Outbox, Task, Worker, now
from app.store.turns import FINETUNE
from tests.jobs.conftest import PROBE, TENANT
from tests.store.samples import accept_task, make_embedding, ready_task


class FakeEngine:
    """Remembers what it was handed; the second `enqueue` of a job changes nothing."""

    def __init__(self) -> None:
        self.pending: list[str] = []
        self.taken_over: list[str] = []
        self.fails = False

    def start(self, work: object) -> None: ...

    def stop(self) -> None: ...

    def take_over(self, executor_ids: Sequence[str]) -> None:
        self.taken_over += executor_ids

    def forget_ended(self, before: object) -> None: ...

    def enqueue(self, job_id: str, kind: str) -> None:
        if job_id not in self.pending:
            self.pending.append(job_id)
        if self.fails:
            raise OSError("killed right here")


@pytest.fixture
def job_id(database: Database, blobs: BlobStore) -> str:
    return accept(database, blobs)


def accept(database: Database, blobs: BlobStore) -> str:
    blob = blobs.put(io.BytesIO(b"never read here"))
    with database.session() as session:
        _, job = tasks.create_task(
            session, TENANT, name="t", tags=[], label_kind="auto", probe=PROBE, archive=blob
        )
    return job.id


def outbox(database: Database) -> list[str]:
    with database.session(read_only=True) as session:
        return list(session.scalars(select(Outbox.job_id)))


def test_accepted_job_is_handed_to_the_engine_and_leaves_the_outbox(
    database: Database, job_id: str
) -> None:
    engine = FakeEngine()
    dispatch(database, engine)
    assert engine.pending == [job_id]
    assert outbox(database) == []


def test_job_stays_in_the_outbox_when_the_dispatcher_dies_after_handing_it_over(
    database: Database, job_id: str
) -> None:
    engine = FakeEngine()
    engine.fails = True
    with pytest.raises(OSError, match="killed"):
        dispatch(database, engine)
    assert outbox(database) == [job_id]


def dying_before_its_commit(session: Callable[..., Any]) -> Callable[..., Any]:
    @contextmanager
    def dying(database: Database, **options: bool) -> Iterator[Session]:
        with session(database, **options) as opened:
            yield opened
            if not options:
                raise OSError("killed right here")

    return dying


def test_job_handed_over_again_after_that_runs_once(
    database: Database, settings: Settings, job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []
    ran_one = threading.Event()

    def work(job_id: str) -> None:
        ran.append(job_id)
        ran_one.set()
        threading.Event().wait(0.2)

    engine = DbosEngine(settings.engine_url, executor_id="one", poll_interval_seconds=0.02)
    engine.start(work)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(Database, "session", dying_before_its_commit(Database.session))
            with pytest.raises(OSError, match="killed"):
                dispatch(database, engine)
        dispatch(database, engine)
        assert ran_one.wait(10)
        threading.Event().wait(0.5)
    finally:
        engine.stop()
    assert ran == [job_id]


def test_reconcile_hands_over_unfinished_jobs_only(
    database: Database, blobs: BlobStore, job_id: str
) -> None:
    running = accept(database, blobs)
    ended = accept(database, blobs)
    enqueue_reindex(database, "in the background")
    with database.session() as session:
        assert jobs.start_job(session, running, max_attempts=3)
        jobs.request_cancel(session, TENANT, ended)
    engine = FakeEngine()
    reconcile(database, engine)
    assert engine.pending == [running]  # the other one still waits for its turn


def test_reconcile_hands_over_again_what_the_engine_lost(database: Database, job_id: str) -> None:
    dispatch(database, FakeEngine())
    engine = FakeEngine()
    reconcile(database, engine)
    assert engine.pending == [job_id]


def test_a_worker_is_handed_one_job_at_a_time_and_the_next_once_that_has_ended(
    database: Database, blobs: BlobStore
) -> None:
    first, second = accept(database, blobs), accept(database, blobs)
    engine = FakeEngine()
    for _ in range(3):
        dispatch(database, engine)
    assert engine.pending == [first]
    with database.session() as session:
        jobs.request_cancel(session, TENANT, first)
    dispatch(database, engine)
    assert engine.pending == [first, second]


def test_the_job_of_a_second_tenant_is_worked_on_next_and_not_last(
    database: Database, blobs: BlobStore, settings: Settings
) -> None:
    worked_on: list[str] = []

    def work(job_id: str) -> None:
        with database.session() as session:
            started = jobs.start_job(session, job_id, max_attempts=3)
            assert started is not None
            if not worked_on:
                accept_task(session, tenant="second", name="the only one")
            jobs.finish_job(session, job_id, started.token, "failed", problem={})
        worked_on.append(started.tenant)

    for _ in range(20):
        accept(database, blobs)
    engine = DbosEngine(settings.engine_url, executor_id="one", poll_interval_seconds=0.02)
    engine.start(work)
    try:
        give_up_at = time.monotonic() + 30
        while len(worked_on) < 3 and time.monotonic() < give_up_at:
            dispatch(database, engine)
            time.sleep(0.02)
        time.sleep(0.2)  # the engine writes down that the third has ended
    finally:
        engine.stop()
    assert worked_on[:3] == [TENANT, "second", TENANT]


def test_two_workers_have_two_places(database: Database, blobs: BlobStore) -> None:
    with database.session() as session:
        for name in ("one", "two"):
            fields = {"probe": PROBE, "space_id": "space", "device": "cpu", "code_version": ""}
            workers.register(session, Worker(id=name, **fields))
    job_ids = [accept(database, blobs) for _ in range(3)]
    engine = FakeEngine()
    dispatch(database, engine)
    assert engine.pending == job_ids[:2]


def enqueue_reindex(database: Database, name: str) -> str:
    with database.session() as session:
        task = ready_task(session, make_embedding(), tenant=TENANT, name=name)
        jobs.enqueue_reindex(session, [(task.seq, TENANT)], PROBE)
        job_ids = select(Job.id).where(Job.task_seq == task.seq).order_by(Job.seq)
        return session.scalars(job_ids).all()[-1]


def test_job_of_the_background_is_handed_over_once_nothing_else_is_unfinished(
    database: Database, job_id: str
) -> None:
    background = [enqueue_reindex(database, name) for name in "ab"]
    engine = FakeEngine()
    for _ in range(3):
        dispatch(database, engine)
    assert engine.pending == [job_id]
    with database.session() as session:
        jobs.request_cancel(session, TENANT, job_id)
    for _ in range(3):
        dispatch(database, engine)
    assert engine.pending == [job_id, background[0]]
    with database.session() as session:
        assert jobs.start_job(session, background[0], max_attempts=3)
    for _ in range(3):
        dispatch(database, engine)
    assert engine.pending == [job_id, background[0]]


def test_job_of_the_background_has_its_turn_while_training_waits_for_a_place(
    database: Database, job_id: str
) -> None:
    with database.session() as session:
        task = jobs.get_job(session, TENANT, job_id).task
        jobs.request_cancel(session, TENANT, job_id)
        training = [jobs.enqueue(session, task, FINETUNE).id for _ in range(2)]
    background = enqueue_reindex(database, "a")
    engine = FakeEngine()
    for _ in range(2):
        dispatch(database, engine)
    assert outbox(database) == training[1:]
    assert set(engine.pending) == {training[0], background}


def test_housekeeping_spares_a_blob_that_a_task_takes_up_meanwhile(
    database: Database, blobs: BlobStore, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "UPLOAD_SECONDS", -1.0)
    taken = blobs.put(io.BytesIO(b"never read here"))
    blobs.put(io.BytesIO(b"nobody's"))
    list_orphans = archives.orphans

    def orphans(*asked: Any) -> list[str]:
        listed = list_orphans(*asked)
        accept(database, blobs)
        return listed

    monkeypatch.setattr(archives, "orphans", orphans)
    housekeep(settings, database, blobs, FakeEngine())
    assert blobs.stored() == [taken.sha256]


def test_housekeeping_forgets_what_the_audit_log_has_kept_long_enough(
    database: Database, blobs: BlobStore, settings: Settings
) -> None:
    with database.session() as session:
        for days in (settings.audit_retention_days + 1, settings.audit_retention_days - 1):
            at = now() - timedelta(days=days)
            session.add(AuditEvent(at=at, action=f"{days}", status=200))
    housekeep(settings, database, blobs, FakeEngine())
    with database.session(read_only=True) as session:
        assert session.scalars(select(AuditEvent.action)).all() == ["364.0"]


def test_the_house_is_kept_at_once_and_again_after_it_went_wrong(
    database: Database, blobs: BlobStore, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopping, kept = threading.Event(), []

    def keep(*_: object) -> None:
        kept.append(1)
        if len(kept) == 3:
            stopping.set()
        raise OSError("away")

    monkeypatch.setattr(worker, "HOUSEKEEPING_SECONDS", 0.0)
    monkeypatch.setattr(worker, "housekeep", keep)
    worker._housekeep_until(stopping, settings, database, blobs, FakeEngine())
    assert len(kept) == 3


def test_job_that_met_trouble_runs_again_once_it_is_reconciled(
    database: Database, settings: Settings, job_id: str
) -> None:
    ran_twice = threading.Event()
    attempts: list[str] = []

    def work(job_id: str) -> None:
        attempts.append(job_id)
        if len(attempts) == 2:
            ran_twice.set()
            return
        raise OperationalError("SELECT 1", {}, Exception("database is locked"))

    engine = DbosEngine(settings.engine_url, executor_id="one", poll_interval_seconds=0.02)
    engine.start(work)
    try:
        dispatch(database, engine)
        for _ in range(200):
            if ran_twice.wait(0.05):
                break
            reconcile(database, engine)
    finally:
        engine.stop()
    assert attempts == [job_id, job_id]


def test_embeddings_that_no_task_has_are_swept_in_bites(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "EMBEDDINGS_AT_ONCE", 2)
    with database.session() as session:
        kept = ready_task(session, make_embedding(0)).embedding_seq
        for seed in range(5):
            embeddings.add(session, TENANT, f"unused {seed}", make_embedding(seed))
        library = embeddings.add(session, PUBLIC, "library", make_embedding(1)).seq
    housekeeping.sweep_embeddings(database)
    with database.session(read_only=True) as session:
        assert session.scalars(select(Embedding.seq).order_by(Embedding.seq)).all() == [
            kept,
            library,
        ]


def test_housekeeping_deletes_tasks_that_were_not_to_be_kept(
    database: Database, blobs: BlobStore, settings: Settings, job_id: str
) -> None:
    accept(database, blobs)
    with database.session() as session:
        job = jobs.get_job(session, TENANT, job_id)
        job.task.expires_at = now() - timedelta(seconds=1)
    housekeep(settings, database, blobs, FakeEngine())
    with database.session(read_only=True) as session:
        assert len(session.scalars(select(Task)).all()) == 1
        assert len(session.scalars(select(Job)).all()) == 1


def test_dead_workers_are_taken_over_from_once_and_never_oneself(database: Database) -> None:
    with database.session() as session:
        for name in ("one", "dead", "alive"):
            fields = {"probe": PROBE, "space_id": "space", "device": "cpu", "code_version": ""}
            workers.register(session, Worker(id=name, **fields))
        for name in ("one", "dead"):
            workers.retire(session, name)
    engine = FakeEngine()
    for _ in range(2):
        worker.take_over(database, engine, "one")
    assert engine.taken_over == ["dead"]
    with database.session(read_only=True) as session:
        assert [each.id for each in workers.alive(session, 60)] == ["alive"]


def test_a_worker_that_was_taken_for_dead_stops(database: Database) -> None:
    stopping = threading.Event()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "HEARTBEAT_SECONDS", 0.01)
        worker._beat(database, "nobody knows it", stopping)
    assert stopping.is_set()


def test_the_id_of_a_worker_is_that_of_its_data_directory(tmp_path: Path) -> None:
    alone = Settings(data_dir=tmp_path / "alone")
    beside, other = (
        Settings(data_dir=tmp_path / name, jobs_url="postgresql+psycopg://host/name")
        for name in ("beside", "other")
    )
    for settings in (beside, other):
        settings.data_dir.mkdir()
    assert worker.own_id(alone) == worker.EMBEDDED
    assert worker.own_id(beside) == worker.own_id(beside) != worker.own_id(other)


def test_second_worker_on_one_data_directory_is_refused(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "PATIENCE_SECONDS", 0.1)
    settings.data_dir.mkdir(parents=True)
    with (
        FileLock(settings.data_dir / "worker.lock"),
        pytest.raises(Conflict, match="Another worker holds"),
    ):
        worker.run_worker(settings, "cpu", parent_pipe=False)
