"""Two workers as on two machines, one PostgreSQL and one bucket: what one leaves the other does."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import torch
from sqlalchemy import create_engine, select, text

from app.jobs.bench import Workbench
from app.jobs.run import run_job
from app.jobs.supervisor import child_environment
from app.settings import Settings
from app.store import finetunes, tasks, workers
from app.store.blobs import open_blobs
from app.store.session import Database
from app.store.tables import Finetune, Job
from tests.images import labelled_zip
from tests.jobs.conftest import PROBE, TENANT
from tests.jobs.held import HOLD, WORKER_COMMAND

PATIENCE_SECONDS = 180

pytestmark = pytest.mark.engines("servers")


@pytest.fixture
def hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """While it is there, jobs stay half way."""
    path = tmp_path / "hold"
    path.touch()
    monkeypatch.setenv(HOLD, str(path))
    return path


@contextmanager
def machine(settings: Settings, data_dir: Path) -> Iterator[subprocess.Popen[bytes]]:
    own = settings.model_copy(update={"data_dir": data_dir})
    process = subprocess.Popen(
        WORKER_COMMAND, env=child_environment(own, os.environ), stdin=subprocess.PIPE
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def on_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def wait_until(true: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while not true():
        assert time.monotonic() < give_up_at
        time.sleep(0.05)


def at_work(settings: Settings) -> str:
    """The worker that has the only job."""
    engine = create_engine(settings.engine_url)
    with engine.connect() as connection:
        found = connection.scalars(text("SELECT executor_id FROM dbos.workflow_status")).one()
    engine.dispose()
    return str(found)


@pytest.mark.parametrize(("number", "attempts"), [(signal.SIGKILL, 2), (signal.SIGTERM, 1)])
def test_the_job_of_a_worker_that_never_comes_back_is_done_once_by_another(
    settings: Settings,
    database: Database,
    hold: Path,
    tmp_path: Path,
    number: signal.Signals,
    attempts: int,
) -> None:
    def job() -> Job:
        with database.session(read_only=True) as session:
            return session.scalars(select(Job)).one()

    def alive() -> set[str]:
        with database.session(read_only=True) as session:
            return {worker.id for worker in workers.alive(session, 10)}

    blob = open_blobs(settings.blobs_at).put(io.BytesIO(labelled_zip(2, 10)))
    directories = [tmp_path / name for name in ("here", "there")]
    with ExitStack() as machines:
        running = [machines.enter_context(machine(settings, each)) for each in directories]
        wait_until(lambda: len(alive()) == 2)
        with database.session() as session:
            tasks.create_task(
                session, TENANT, name="t", tags=[], label_kind="auto", probe=PROBE, archive=blob
            )
        wait_until(lambda: job().phase == "fisher")
        first = at_work(settings)
        names = [(directory / "worker.id").read_text() for directory in directories]
        leaving = running[names.index(first)]
        leaving.send_signal(number)
        leaving.wait(PATIENCE_SECONDS)
        hold.unlink()
        wait_until(lambda: job().finished_at is not None)
        assert (job().state, job().attempts) == ("succeeded", attempts)
        assert at_work(settings) in set(names) - {first}
        wait_until(lambda: alive() == set(names) - {first})


def test_a_run_whose_machine_is_gone_ends_on_another_with_the_same_model(
    settings: Settings, database: Database, bench: Workbench, begin, hold: Path, tmp_path: Path
) -> None:
    def read(finetune_id: str) -> Finetune:
        with database.session(read_only=True) as session:
            row = finetunes.get(session, TENANT, finetune_id)
            assert row.job.state
            return row

    whole, job_id = begin()
    with on_threads(settings.threads):
        run_job(job_id, bench)
    interrupted, _ = begin()
    directories = [tmp_path / name for name in ("here", "there")]
    with ExitStack() as machines:
        running = [machines.enter_context(machine(settings, each)) for each in directories]
        wait_until(lambda: len(read(interrupted).curve) == 2)
        assert finetunes.files_of(read(interrupted)).keys() == {finetunes.CHECKPOINT}
        ids = [directory / "worker.id" for directory in directories]
        wait_until(lambda: all(path.exists() for path in ids))
        names = [path.read_text() for path in ids]
        running[names.index(at_work(settings))].kill()
        hold.unlink()
        wait_until(lambda: read(interrupted).job.finished_at is not None)
    ended = read(interrupted)
    assert (ended.job.state, ended.job.problem) == ("succeeded", None)
    assert finetunes.files_of(ended)["model"] == finetunes.files_of(read(whole))["model"]
