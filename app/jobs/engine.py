"""The durable engine: work handed to it outlives the process, and runs here one piece at a time."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Protocol

from dbos import (
    DBOS,
    DBOSConfig,
    DBOSPortableJSONSerializer,
    SetWorkflowID,
    WorkflowStatus,
    WorkflowStatusString,
)
from sqlalchemy import make_url

from app.store.turns import JOBS, QUEUES, queue_of

Work = Callable[[str], None]

JOB_CONTRACT = "1"
"""What a pending job means to the code that resumes it: a deploy that changed it orphans them."""

CALM = 16
"""Where jobs take minutes or hours, queues are looked into so many times more seldom: a look costs
an idle worker some 4 ms."""

_ENDED = [
    WorkflowStatusString.SUCCESS.value,
    WorkflowStatusString.ERROR.value,
    WorkflowStatusString.CANCELLED.value,
    WorkflowStatusString.MAX_RECOVERY_ATTEMPTS_EXCEEDED.value,
]


def poll_intervals(seconds: float) -> dict[str, float]:
    """By queue, how often a worker looks into it."""
    return {queue: seconds * (1 if queue == JOBS else CALM) for queue in QUEUES}


class HandBack(BaseException):
    """Raised by work to leave itself pending, for this executor's next start.

    No Exception: the engine records those as the work's end, and lets this one pass.
    """


class Engine(Protocol):
    def start(self, work: Work) -> None:
        """Calls `work(job_id)` for whatever is pending or comes in, one of each queue at a time."""

    def enqueue(self, job_id: str, kind: str) -> None:
        """Sees to it that the job runs: nothing to do where it is pending already."""

    def take_over(self, executor_ids: Sequence[str]) -> None:
        """What those left pending, who are dead, goes back to its queue, for whoever is free."""

    def forget_ended(self, before: datetime) -> None:
        """Drops the records of work that ended earlier than that."""

    def stop(self) -> None:
        """Takes no more work. What runs keeps its place and is resumed by the next start."""


class DbosEngine:
    """DBOS on a SQLite file of its own, or in a schema of its own on PostgreSQL.

    DBOS is one per process, and so is this. An executor resumes the work of its own id only: two
    processes under one id would both.
    """

    def __init__(self, url: str, *, executor_id: str, poll_interval_seconds: float) -> None:
        self._url = make_url(url)
        self._executor_id = executor_id
        self._poll_interval_seconds = poll_interval_seconds
        self._workflow: Work | None = None
        self._at_work: set[str] = set()
        self._suspected: set[str] = set()

    def start(self, work: Work) -> None:
        if self._url.get_backend_name() == "sqlite":
            _write_ahead(Path(self._url.database or ""))
        _log_with_ours()
        config: DBOSConfig = {
            "name": "task2vec",
            "system_database_url": self._url.render_as_string(hide_password=False),
            "executor_id": self._executor_id,
            "application_version": JOB_CONTRACT,
            "serializer": DBOSPortableJSONSerializer(),
            "log_level": "WARNING",
        }
        DBOS(config=config)

        # Attempts are counted in our own rows, where a resumed workflow does not forget them.
        @DBOS.workflow(name="job", max_recovery_attempts=None)
        def run_job(job_id: str) -> None:
            self._at_work.add(job_id)
            try:
                work(job_id)
            finally:
                self._at_work.discard(job_id)

        self._workflow = run_job
        DBOS.launch()
        for queue, seconds in poll_intervals(self._poll_interval_seconds).items():
            DBOS.register_queue(queue, worker_concurrency=1, polling_interval_sec=seconds)

    def enqueue(self, job_id: str, kind: str) -> None:
        if self._workflow is None:
            raise RuntimeError("the engine takes work only once it has started")
        status = DBOS.get_workflow_status(job_id)
        if status is not None and (status.status in _ENDED or self._is_left(status)):
            # The caller's row says unfinished, so that end was never applied: begin anew.
            DBOS.delete_workflow(job_id)
        with SetWorkflowID(job_id):
            DBOS.enqueue_workflow(queue_of(kind), self._workflow, job_id)

    def _is_left(self, status: WorkflowStatus) -> bool:
        """Whether this executor has it as pending and is not at it: how it ended could not be
        written, on a full disk, say.

        Only if it was so the last time, too: what is about to start looks the same for a moment.
        """
        job_id = status.workflow_id
        left = (
            status.status == WorkflowStatusString.PENDING.value
            and status.executor_id == self._executor_id
            and job_id not in self._at_work
        )
        if left and job_id not in self._suspected:
            self._suspected.add(job_id)
            return False
        self._suspected.discard(job_id)
        return left

    def take_over(self, executor_ids: Sequence[str]) -> None:
        # Of the server that DBOS has for its own console, which nobody is to run for this. Several
        # may ask at once: what is taken up again belongs to the dead no more.
        DBOS._recover_pending_workflows(list(executor_ids))

    def forget_ended(self, before: datetime) -> None:
        while ended := DBOS.list_workflows(
            status=_ENDED,
            completed_before=before.isoformat(),
            limit=500,
            load_input=False,
            load_output=False,
        ):
            DBOS.delete_workflows([status.workflow_id for status in ended])

    def stop(self) -> None:
        DBOS.destroy(destroy_registry=True)
        self._workflow = None


def _write_ahead(path: Path) -> None:
    """The write-ahead log stays with the file: 6 ms a write instead of 22."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")


def _log_with_ours() -> None:
    """The engine's own warnings become JSON lines among ours."""
    engine_logger = logging.getLogger("dbos")
    engine_logger.handlers[:] = logging.getLogger("task2vec").handlers or [logging.NullHandler()]
    engine_logger.propagate = False
