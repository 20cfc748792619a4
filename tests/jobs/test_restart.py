"""Killed for real, in the middle of a job: it is done once, and nothing is lost or doubled."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select
from typer.testing import CliRunner

from app.cli import app
from app.jobs.supervisor import WorkerSupervisor, child_environment
from app.settings import Settings
from app.store import tasks, workers
from app.store.blobs import BlobStore
from app.store.session import Database
from app.store.tables import Embedding, Job, Outbox, Task
from tests.images import labelled_zip
from tests.jobs.conftest import OTHER_PROBE, PROBE, TENANT
from tests.jobs.held import HOLD, SERVE_COMMAND, WORKER_COMMAND

IMAGES = 40
PATIENCE_SECONDS = 180


@pytest.fixture
def hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """While it is there, jobs stay half way."""
    path = tmp_path / "hold"
    path.touch()
    monkeypatch.setenv(HOLD, str(path))
    return path


@pytest.fixture(scope="module")
def archive() -> bytes:
    return labelled_zip(2, IMAGES // 2)


def accept(database: Database, blobs: BlobStore, archive: bytes) -> str:
    blob = blobs.put(io.BytesIO(archive))
    with database.session() as session:
        _, job = tasks.create_task(
            session, TENANT, name="t", tags=[], label_kind="auto", probe=PROBE, archive=blob
        )
    return job.id


def read(database: Database, job_id: str) -> Job:
    with database.session(read_only=True) as session:
        return session.scalars(select(Job).where(Job.id == job_id)).one()


def wait_for(database: Database, job_id: str, true: Callable[[Job], bool]) -> Job:
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while not true(job := read(database, job_id)):
        assert time.monotonic() < give_up_at, f"still {job.state} in {job.phase}"
        time.sleep(0.02)
    return job


def is_half_way(job: Job) -> bool:
    assert not is_over(job), f"{job.state}: {job.problem}"
    return job.phase == "fisher"


def is_over(job: Job) -> bool:
    return job.finished_at is not None


def require_done_once(database: Database, blobs: BlobStore, job: Job, attempts: int) -> None:
    assert (job.state, job.attempts, job.problem) == ("succeeded", attempts, None)
    time.sleep(0.5)  # long enough for a second run to show
    assert read(database, job.id).attempts == attempts
    with database.session(read_only=True) as session:
        (task,) = session.scalars(select(Task)).all()
        assert (task.status, task.n_images) == ("ready", IMAGES)
        assert blobs.stored() == [archive.sha256 for archive in task.archives]
        for table, rows in ((Embedding, 1), (Job, 1), (Outbox, 0)):
            assert session.scalar(select(func.count()).select_from(table)) == rows


def test_job_of_a_killed_worker_is_done_once_by_the_next(
    settings: Settings, database: Database, blobs: BlobStore, archive: bytes, hold: Path
) -> None:
    job_id = accept(database, blobs, archive)
    supervisor = WorkerSupervisor(settings, command=WORKER_COMMAND)
    supervisor.start()
    try:
        wait_for(database, job_id, is_half_way)
        killed = supervisor.pid
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        hold.unlink()
        job = wait_for(database, job_id, is_over)
        assert supervisor.pid != killed
        require_done_once(database, blobs, job, attempts=2)
    finally:
        supervisor.stop()
    with database.session(read_only=True) as session:
        assert workers.alive(session, 60) == []


@contextmanager
def serve(settings: Settings) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    """The whole service as a user starts it, and a client of its API; killed at the end."""
    process = subprocess.Popen(
        [*SERVE_COMMAND, "--port", "0", "--json"],
        env=child_environment(settings, os.environ),
        stdout=subprocess.PIPE,
    )
    with process:
        try:
            assert process.stdout is not None
            url = json.loads(process.stdout.readline())["url"]
            transport = httpx.HTTPTransport(retries=5)
            with httpx.Client(base_url=f"{url}/v1", transport=transport, timeout=60) as client:
                yield process, client
        finally:
            process.kill()


def test_job_of_a_killed_service_is_done_once_after_its_restart(
    settings: Settings, database: Database, blobs: BlobStore, archive: bytes, hold: Path
) -> None:
    with serve(settings) as (process, client):
        answer = client.post(
            "/tasks",
            files={"archive": ("set.zip", archive, "application/zip")},
            data={"metadata": json.dumps({"name": "shapes", "probe": PROBE})},
            headers={"Idempotency-Key": "once"},
        )
        assert answer.status_code == 202, answer.text
        job_id = answer.json()["job_id"]
        wait_for(database, job_id, is_half_way)
        process.send_signal(signal.SIGKILL)
        process.wait()
    hold.unlink()
    stopped = read(database, job_id)
    time.sleep(0.5)
    assert read(database, job_id).done == stopped.done, "the worker outlived its service"

    with serve(settings) as (_, client):
        job = wait_for(database, job_id, is_over)
        require_done_once(database, blobs, job, attempts=2)
        (task,) = client.get("/tasks").json()["items"]
        assert (task["id"], task["status"]) == (answer.json()["id"], "ready")
        embedding = client.get(f"/tasks/{task['id']}/embedding")
        assert embedding.status_code == 200


@pytest.mark.slow
def test_job_of_a_stopped_worker_is_handed_back_and_resumed_uncounted(
    settings: Settings, database: Database, blobs: BlobStore, archive: bytes, hold: Path
) -> None:
    job_id = accept(database, blobs, archive)
    environment = child_environment(settings, os.environ)
    with subprocess.Popen(WORKER_COMMAND, env=environment, stdin=subprocess.PIPE) as worker:
        wait_for(database, job_id, is_half_way)
        worker.terminate()
        assert worker.wait(PATIENCE_SECONDS) == 0
    assert read(database, job_id).state == "queued"
    hold.unlink()
    supervisor = WorkerSupervisor(settings)
    supervisor.start()
    try:
        job = wait_for(database, job_id, is_over)
        require_done_once(database, blobs, job, attempts=1)
    finally:
        supervisor.stop()


@pytest.mark.slow
def test_reindexing_of_a_killed_worker_goes_on_and_the_store_changes_over_at_its_end(
    settings: Settings,
    database: Database,
    blobs: BlobStore,
    hold: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in child_environment(settings, {}).items():
        monkeypatch.setenv(name, value)
    uploads = [accept(database, blobs, labelled_zip(2, 6, seed=seed)) for seed in (1, 2)]
    hold.unlink()
    supervisor = WorkerSupervisor(settings, command=WORKER_COMMAND)
    supervisor.start()
    try:
        for job_id in uploads:
            wait_for(database, job_id, is_over)
        hold.touch()
        begun = task2vec("reindex", "--probe", OTHER_PROBE)
        assert (begun["queued"], begun["probe"], begun["library_tasks"]) == (2, OTHER_PROBE, 0)
        with database.session(read_only=True) as session:
            moves = session.scalars(
                select(Job.id).where(Job.kind == "reindex").order_by(Job.seq)
            ).all()
        wait_for(database, moves[0], is_half_way)
        status = task2vec("reindex", "--status")
        assert [space["probe"] for space in status["spaces"]] == [PROBE]
        assert (status["queued"], status["running"], status["embedded"]) == (1, 1, 0)
        killed = supervisor.pid
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        hold.unlink()
        ended = [wait_for(database, job_id, is_over) for job_id in moves]
        assert [(job.state, job.attempts) for job in ended] == [("succeeded", 2), ("succeeded", 1)]
    finally:
        supervisor.stop()
    status = task2vec("reindex", "--status")
    (space,) = status["spaces"]
    assert (space["space_id"], space["tasks"]) == (begun["space_id"], 2)
    assert (status["queued"], status["running"], status["left"]) == (0, 0, [])
    assert task2vec("reindex", "--probe", OTHER_PROBE)["there"] == 2


def task2vec(*args: str) -> Any:
    result = CliRunner().invoke(app, [*args, "--json"])
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)
