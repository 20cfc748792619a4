from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import Mock

import pytest
from dbos._sys_db import SystemDatabase
from sqlalchemy import create_engine, text

from app.jobs.engine import DbosEngine, HandBack
from app.settings import Settings
from app.store.tasks import EMBED_TASK
from app.store.turns import FINETUNE
from tests.engines import Engines

pytestmark = pytest.mark.engines("embedded", "servers")

Start = Callable[..., DbosEngine]


@pytest.fixture
def settings(tmp_path: Path, engines: Engines) -> Settings:
    """Without the probe that the others of this room wait for."""
    return Settings(**engines.settings, data_dir=tmp_path)


@pytest.fixture
def start(settings: Settings) -> Iterator[Start]:
    """Starts an engine on one and the same database; a started one is stopped first."""
    running: list[DbosEngine] = []

    def start(work: Callable[[str], None], executor_id: str = "one") -> DbosEngine:
        while running:
            running.pop().stop()
        engine = DbosEngine(
            settings.engine_url, executor_id=executor_id, poll_interval_seconds=0.02
        )
        engine.start(work)
        running.append(engine)
        return engine

    yield start
    while running:
        running.pop().stop()


class Calls:
    """Counts work per job, and waits for it."""

    def __init__(self, ends_with: BaseException | None = None) -> None:
        self.job_ids: list[str] = []
        self._ends_with = ends_with
        self._changed = threading.Condition()

    def __call__(self, job_id: str) -> None:
        with self._changed:
            self.job_ids.append(job_id)
            self._changed.notify_all()
        if self._ends_with is not None:
            raise self._ends_with

    def wait_for(self, count: int) -> list[str]:
        with self._changed:
            self._changed.wait_for(lambda: len(self.job_ids) >= count, timeout=10)
        time.sleep(0.2)  # long enough for a call too many
        return self.job_ids


def test_job_handed_over_twice_runs_once(start: Start) -> None:
    calls = Calls()
    engine = start(calls)
    engine.enqueue("a", EMBED_TASK)
    engine.enqueue("a", EMBED_TASK)
    engine.enqueue("b", EMBED_TASK)
    assert calls.wait_for(2) == ["a", "b"]


def test_jobs_run_one_at_a_time(start: Start) -> None:
    together: list[int] = []
    inside = threading.Semaphore(2)
    ended = Calls()

    def work(job_id: str) -> None:
        inside.acquire()
        together.append(2 - inside._value)
        time.sleep(0.05)
        inside.release()
        ended(job_id)

    engine = start(work)
    for job_id in "abc":
        engine.enqueue(job_id, EMBED_TASK)
    ended.wait_for(3)
    assert together == [1, 1, 1]


def test_what_takes_hours_does_not_hold_up_what_takes_seconds(start: Start) -> None:
    trained = threading.Event()
    calls = Calls()

    def work(job_id: str) -> None:
        if job_id == "training":
            trained.wait(10)
        calls(job_id)

    engine = start(work)
    engine.enqueue("training", FINETUNE)
    engine.enqueue("embedding", EMBED_TASK)
    assert calls.wait_for(1) == ["embedding"]
    trained.set()
    assert calls.wait_for(2) == ["embedding", "training"]


def test_job_handed_back_is_resumed_by_the_next_start_and_not_before(start: Start) -> None:
    leaving = Calls(ends_with=HandBack())
    start(leaving).enqueue("a", EMBED_TASK)
    assert leaving.wait_for(1) == ["a"]
    resuming = Calls()
    start(resuming)
    assert resuming.wait_for(1) == ["a"]
    idle = Calls()
    start(idle)
    assert idle.wait_for(0) == []


def test_work_of_an_executor_that_never_comes_back_goes_to_one_that_is_there(
    start: Start, settings: Settings
) -> None:
    leaving = Calls(ends_with=HandBack())
    start(leaving).enqueue("a", EMBED_TASK)
    leaving.wait_for(1)
    taking = Calls()
    engine = start(taking, executor_id="two")
    assert taking.wait_for(0) == []
    for _ in range(2):
        engine.take_over(["one"])
    assert taking.wait_for(1) == ["a"]


def test_job_whose_work_raised_can_be_handed_over_again(start: Start) -> None:
    calls = Calls(ends_with=ValueError("the database was away"))
    engine = start(calls)
    engine.enqueue("a", EMBED_TASK)
    calls.wait_for(1)
    engine.enqueue("a", EMBED_TASK)
    assert calls.wait_for(2) == ["a", "a"]


def test_job_whose_end_could_not_be_written_is_begun_anew(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Calls()
    engine = start(calls)
    full = Mock(side_effect=OSError("no space left on device"))
    with monkeypatch.context() as patch:
        patch.setattr(SystemDatabase, "update_workflow_outcome", full)
        engine.enqueue("a", EMBED_TASK)
        calls.wait_for(1)
    engine.enqueue("a", EMBED_TASK)  # for all that is known it is about to start
    assert calls.wait_for(1) == ["a"]
    engine.enqueue("a", EMBED_TASK)
    assert calls.wait_for(2) == ["a", "a"]


def test_job_at_work_is_not_begun_anew_however_often_it_is_handed_over(start: Start) -> None:
    over = threading.Event()
    calls = Calls()

    def work(job_id: str) -> None:
        calls(job_id)
        over.wait(10)

    engine = start(work)
    engine.enqueue("a", EMBED_TASK)
    calls.wait_for(1)
    for _ in range(3):
        engine.enqueue("a", EMBED_TASK)
    assert calls.wait_for(1) == ["a"]
    over.set()


def test_ended_work_is_forgotten_and_pending_work_is_not(start: Start, settings: Settings) -> None:
    calls = Calls()
    engine = start(calls)
    engine.enqueue("ended", EMBED_TASK)
    calls.wait_for(1)
    leaving = Calls(ends_with=HandBack())
    engine = start(leaving)
    engine.enqueue("pending", EMBED_TASK)
    leaving.wait_for(1)
    engine.forget_ended(datetime.now(UTC))
    assert told(settings, "workflow_uuid") == ["pending"]


def test_what_is_kept_is_json_and_no_pickle(start: Start, settings: Settings) -> None:
    calls = Calls()
    start(calls).enqueue("a", EMBED_TASK)
    calls.wait_for(1)
    assert told(settings, "serialization") == ["portable_json"]


def test_a_file_keeps_a_write_ahead_log(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'new' / 'jobs.sqlite'}"
    engine = DbosEngine(url, executor_id="one", poll_interval_seconds=0.02)
    engine.start(Calls())
    engine.stop()
    with closing(sqlite3.connect(tmp_path / "new" / "jobs.sqlite")) as file:
        assert file.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def told(settings: Settings, column: str) -> list[str]:
    """That column of the engine's own table."""
    engine = create_engine(settings.engine_url)
    schema = "dbos." if settings.engine_is_shared else ""
    with engine.connect() as connection:
        rows = connection.scalars(text(f"SELECT {column} FROM {schema}workflow_status")).all()
    engine.dispose()
    return list(rows)
