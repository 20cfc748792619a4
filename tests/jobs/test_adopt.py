"""Runs that a version before left in the data directory."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.jobs.adopt import adopt_runs
from app.jobs.bench import Workbench
from app.jobs.engine import HandBack
from app.jobs.run import run_job
from app.store import finetunes, jobs
from app.training.names import FILES
from tests.jobs.conftest import TENANT
from tests.jobs.test_finetune import at_step, files, steps_heard


def leave_as_before(bench: Workbench, finetune_id: str) -> dict[str, bytes]:
    """Its files in a folder instead of the store."""
    left = files(bench, finetune_id)
    directory = bench.settings.finetune_dir / finetune_id
    directory.mkdir(parents=True)
    for name, data in left.items():
        (directory / {**FILES, "checkpoint": "checkpoint.pt"}[name]).write_bytes(data)
    with bench.database.session() as session:
        row = finetunes.get(session, TENANT, finetune_id)
        for file in row.files:
            bench.blobs.delete(file.sha256)
        finetunes.keep(session, row, {})
    return left


def adopt(bench: Workbench) -> None:
    adopt_runs(bench.settings, bench.database, bench.blobs)


def test_the_model_of_a_run_moves_into_the_store_once(bench: Workbench, begin) -> None:
    finetune_id, job_id = begin()
    run_job(job_id, bench)
    left = leave_as_before(bench, finetune_id)
    for _ in range(2):
        adopt(bench)
        assert files(bench, finetune_id) == left


def test_a_run_that_was_at_work_goes_on_from_its_checkpoint(
    bench: Workbench, begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.jobs.finetune.CHECKPOINTS_SHARE", float("inf"))
    finetune_id, job_id = begin()
    stopping: list[bool] = []
    with monkeypatch.context() as patch:
        at_step(patch, 8, lambda: stopping.append(True))
        with pytest.raises(HandBack):
            run_job(job_id, replace(bench, stopping=lambda: bool(stopping)))
    leave_as_before(bench, finetune_id)
    adopt(bench)
    steps = steps_heard(monkeypatch)
    run_job(job_id, bench)
    assert min(steps) == 7
    assert files(bench, finetune_id).keys() == FILES.keys()


def test_a_folder_without_a_model_is_left_to_housekeeping(bench: Workbench, begin) -> None:
    finetune_id, job_id = begin()
    with bench.database.session() as session:
        jobs.request_cancel(session, TENANT, job_id)
    directory = bench.settings.finetune_dir / finetune_id
    directory.mkdir(parents=True)
    (directory / "checkpoint.pt").write_bytes(b"of a run that was cancelled")
    adopt(bench)
    assert directory.is_dir()
    with bench.database.session(read_only=True) as session:
        assert finetunes.files_of(finetunes.get(session, TENANT, finetune_id)) == {}
