"""Images classified by the model of a run, by a job that is killed, taken back and fenced."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from sqlalchemy import func, select, update
from sqlalchemy.exc import OperationalError

from app.embedding.archive import ArchiveLimits
from app.embedding.dataset import read_labelled_images
from app.errors import Conflict
from app.jobs import predict
from app.jobs.bench import Workbench
from app.jobs.engine import HandBack
from app.jobs.housekeeping import PREDICTION_RETENTION, housekeep
from app.jobs.predict import above, top
from app.jobs.progress import Progress
from app.jobs.run import run_job
from app.store import archives, finetunes, jobs, predictions, tasks
from app.store.tables import Finetune, Job, Prediction, now
from app.training.split import split_rows
from app.training.verdict import verdict
from tests.images import labelled_files, make_zip, png
from tests.jobs.conftest import TENANT
from tests.training.runs import FULL

SHAPES = labelled_files(3, 16)
SHORT = FULL.model_copy(update={"epochs": 1})


@pytest.fixture
def run_id(bench: Workbench, begin) -> str:
    """Of a run that has ended."""
    finetune_id, job_id = begin(SHORT)
    run_job(job_id, bench)
    return finetune_id


@pytest.fixture
def send(bench: Workbench, run_id: str) -> Callable[..., Prediction]:
    def ask(images: bytes, name: str = "sent.zip", run: str = run_id, **asked: Any) -> Prediction:
        blob = bench.blobs.put(io.BytesIO(images))
        with bench.database.session() as session:
            row = finetunes.get(session, TENANT, run)
            return predictions.create(
                session, row, blob, name, **{"k": 5, "threshold": 0.5} | asked
            )

    return ask


def read(bench: Workbench, row: Prediction) -> Prediction:
    with bench.database.session(read_only=True) as session:
        found = predictions.get(session, TENANT, row.id)
        assert found.job.state
        assert found.job.task.status
        return found


def listed(row: Prediction) -> dict[str, list[tuple[str, float]]]:
    classes = row.result["classes"]
    return {
        name: [(classes[number], probability) for number, probability in found]
        for name, found in predictions.images(row.result)
    }


def test_the_held_out_images_give_the_runs_verdict_again(bench: Workbench, run_id, send) -> None:
    row = send(make_zip(SHAPES))
    run_job(row.job.id, bench)
    row = read(bench, row)
    assert (row.job.state, row.job.problem, row.job.task.status) == ("succeeded", None, "ready")
    said = listed(row)
    assert sorted(said) == sorted(SHAPES)

    images, _ = read_labelled_images(
        [io.BytesIO(make_zip(SHAPES))],
        size=32,
        label_kind="auto",
        limits=ArchiveLimits(),
        max_image_pixels=10**6,
    )
    _, held_out = split_rows(images.labels, images.digests, FULL.evaluation_share, 0)
    name_of = {hashlib.sha256(data).hexdigest(): name for name, data in SHAPES.items()}
    probabilities = np.array(
        [
            [dict(said[name_of[images.digests[place]]])[label] for label in images.classes]
            for place in held_out
        ]
    )
    with bench.database.session(read_only=True) as session:
        told = finetunes.get(session, TENANT, run_id).result["verdict"]
    again = verdict(probabilities, images.labels[held_out], images.classes)
    assert again.images == told["images"] == 12
    assert again.accuracy == told["accuracy"]
    assert [list(row) for row in again.confusion] == told["confusion"]
    assert again.log_loss == pytest.approx(told["log_loss"], abs=1e-4)


def test_the_images_go_with_the_job_and_the_answer_a_day_later(
    bench: Workbench, send, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoEngine:
        def forget_ended(self, before: object) -> None: ...

    def clean() -> None:
        housekeep(bench.settings, bench.database, bench.blobs, NoEngine())

    row = send(png())
    with bench.database.session(read_only=True) as session:
        assert archives.unneeded(session, [row.sha256]) == []
    monkeypatch.setattr("app.jobs.housekeeping.UPLOAD_SECONDS", -1.0)
    clean()
    assert bench.blobs.size_bytes(row.sha256) is not None, "it is still to be looked at"
    run_job(row.job.id, bench)
    assert bench.blobs.size_bytes(row.sha256) is None
    clean()
    assert read(bench, row).result
    with bench.database.session() as session:
        over = now() - PREDICTION_RETENTION - timedelta(minutes=1)
        session.execute(update(Job).where(Job.id == row.job.id).values(finished_at=over))
    clean()
    with bench.database.session(read_only=True) as session:
        assert session.scalars(select(Prediction.id)).all() == []
        assert session.scalar(select(Job.id).where(Job.id == row.job.id)) is None
        assert session.scalar(select(func.count()).select_from(Finetune)), "the run stays"


def test_what_cannot_be_read_is_listed_and_the_rest_answered(bench: Workbench, send) -> None:
    row = send(make_zip({"a.png": png("red"), "b.png": png()[:40], "c.txt": b"text"}), k=1)
    run_job(row.job.id, bench)
    row = read(bench, row)
    assert row.job.state == "succeeded"
    assert [(name, len(found)) for name, found in listed(row).items()] == [("a.png", 1)]
    assert len(row.result["numbers"]) == 1, "nothing is told of what is none"
    assert list(row.result["refused"]) == ["b.png", "c.txt"]


def test_a_single_image_is_answered_under_its_own_name(bench: Workbench, send) -> None:
    row = send(png("blue"), "sky.png")
    run_job(row.job.id, bench)
    assert list(listed(read(bench, row))) == ["sky.png"]


def test_an_archive_without_images_is_refused_and_the_task_is_not(bench: Workbench, send) -> None:
    row = send(make_zip({"notes.txt": b"text"}))
    run_job(row.job.id, bench)
    row = read(bench, row)
    assert (row.job.state, row.job.task.status, row.result) == ("refused", "ready", None)
    assert row.job.problem["type"].endswith("no-readable-image")
    assert row.job.problem["report"]["files"][0]["path"] == "notes.txt"


def test_files_with_the_same_bytes_share_a_row_of_the_answer(bench: Workbench, send) -> None:
    row = send(make_zip({"a.png": png("red"), "b.png": png("blue"), "c.png": png("red")}))
    run_job(row.job.id, bench)
    result = read(bench, row).result
    assert list(result["images"]) == ["a.png", "b.png", "c.png"]
    assert result["images"]["a.png"] == result["images"]["c.png"] != result["images"]["b.png"]
    assert result["starts"] == [0, 3, 6]


@pytest.mark.parametrize("second", ["red", "blue"])
def test_an_answer_that_would_be_too_long_is_refused_copies_counted(
    bench: Workbench, send, monkeypatch: pytest.MonkeyPatch, second: str
) -> None:
    images = make_zip({"a.png": png("red"), "b.png": png(second)})
    for most, state in ((6, "succeeded"), (5, "refused")):
        monkeypatch.setattr(predict, "MOST_LISTED", most)
        row = send(images)
        run_job(row.job.id, bench)
        row = read(bench, row)
        assert row.job.state == state
    assert row.job.problem["type"].endswith("too-many-probabilities")


def test_of_several_labels_those_above_the_threshold_are_listed(
    bench: Workbench, begin, send
) -> None:
    rows = [f"{name},{'|'.join({name.split('/')[0], 'shape'})}" for name in SHAPES]
    files = SHAPES | {"labels.csv": "\n".join(["file,label", *rows]).encode()}
    finetune_id, job_id = begin(SHORT, images=make_zip(files))
    run_job(job_id, bench)
    every, some = (
        send(make_zip(SHAPES), run=finetune_id, threshold=threshold) for threshold in (0.0, 0.5)
    )
    for row in (every, some):
        run_job(row.job.id, bench)
    assert read(bench, every).result["label_kind"] == "multi_label"
    whole = listed(read(bench, every))
    assert all(len(found) == 4 for found in whole.values())
    assert any(p > 0.5 for found in whole.values() for _, p in found)
    assert listed(read(bench, some)) == {
        name: [(label, p) for label, p in found if p > 0.5] for name, found in whole.items()
    }


def at_phase(monkeypatch: pytest.MonkeyPatch, phase: str, act: Callable[[], object]) -> None:
    report = Progress.__call__

    def listen(progress: Progress, told: str, done: int, total: int) -> None:
        if told == phase:
            act()
        report(progress, told, done, total)

    monkeypatch.setattr(Progress, "__call__", listen)


@pytest.mark.parametrize("phase", ["reading", "predicting"])
def test_handed_back_or_killed_it_is_answered_by_the_next_worker(
    bench: Workbench, send, monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    class Killed(BaseException):
        pass

    def die() -> None:
        raise Killed

    stopping: list[bool] = []
    leaving = replace(bench, stopping=lambda: bool(stopping))
    row = send(make_zip(SHAPES))
    with monkeypatch.context() as patch:
        at_phase(patch, phase, lambda: stopping.append(True))
        with pytest.raises(HandBack):
            run_job(row.job.id, leaving)
    assert (read(bench, row).job.state, read(bench, row).job.attempts) == ("queued", 0)
    assert bench.blobs.size_bytes(row.sha256) is not None
    with monkeypatch.context() as patch:
        at_phase(patch, phase, die)
        with pytest.raises(Killed):
            run_job(row.job.id, bench)
    run_job(row.job.id, bench)
    row = read(bench, row)
    assert (row.job.state, row.job.attempts) == ("succeeded", 2)
    assert len(row.result["images"]) == len(SHAPES)


def test_it_can_be_taken_back(bench: Workbench, send, monkeypatch: pytest.MonkeyPatch) -> None:
    row = send(make_zip(SHAPES | {"more.png": png()}))

    def cancel() -> None:
        with bench.database.session() as session:
            jobs.request_cancel(session, TENANT, row.job.id)

    at_phase(monkeypatch, "predicting", cancel)
    run_job(row.job.id, bench)
    row = read(bench, row)
    assert (row.job.state, row.result, row.job.task.status) == ("cancelled", None, "ready")
    assert bench.blobs.size_bytes(row.sha256) is None


def test_images_go_however_their_job_ends(
    bench: Workbench, send, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(row: Prediction, state: str) -> None:
        assert bench.blobs.size_bytes(row.sha256) is not None
        run_job(row.job.id, bench)
        assert read(bench, row).job.state == state
        assert bench.blobs.size_bytes(row.sha256) is None, state

    end(send(make_zip({"notes.txt": b"text"})), "refused")

    taken_back = send(png("red"))
    with bench.database.session() as session:
        jobs.start_job(session, taken_back.job.id, 3)
        jobs.request_cancel(session, TENANT, taken_back.job.id)
    end(taken_back, "cancelled")

    deadly = send(png("green"))
    with bench.database.session() as session:
        for _ in range(bench.settings.max_job_attempts):
            jobs.start_job(session, deadly.job.id, 3)
    end(deadly, "failed")

    left = send(png("blue"))  # by a worker that died between the job's end and theirs
    with bench.database.session() as session:
        start = jobs.start_job(session, left.job.id, 3)
        predictions.finish(session, left.job.id, start.token, {"images": []})
    end(left, "succeeded")

    def broken(*_: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr("app.jobs.predict.read_model", broken)
    end(send(png("pink")), "failed")


def test_an_end_whose_images_cannot_go_yet_stands(
    bench: Workbench, send, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(*_: object) -> None:
        raise OperationalError("", {}, Exception("database is locked"))

    monkeypatch.setattr(archives, "delete_unneeded", busy)
    row = send(png())
    run_job(row.job.id, bench)
    assert read(bench, row).job.state == "succeeded"
    assert bench.blobs.size_bytes(row.sha256) is not None


def test_who_lost_the_job_leaves_no_answer_behind(bench: Workbench, send) -> None:
    row = send(png())
    with bench.database.session() as session:
        start = jobs.start_job(session, row.job.id, 3)
        jobs.start_job(session, row.job.id, 3)
    with pytest.raises(Conflict, match="no longer holds"), bench.database.session() as session:
        predictions.finish(session, row.job.id, start.token, {"images": []})
    assert read(bench, row).result is None


def test_a_run_whose_files_are_gone_says_so(bench: Workbench, run_id, send) -> None:
    row = send(png())
    with bench.database.session(read_only=True) as session:
        model = finetunes.files_of(finetunes.get(session, TENANT, run_id))["model"]
    bench.blobs.delete(model.sha256)
    run_job(row.job.id, bench)
    row = read(bench, row)
    assert (row.job.state, row.job.task.status) == ("failed", "ready")
    assert row.job.problem["type"].endswith("model-unreadable")


def test_a_task_takes_what_was_asked_of_its_runs_with_it(bench: Workbench, run_id, send) -> None:
    row = send(png())
    with bench.database.session() as session:
        task = tasks.get_own_task(session, TENANT, read(bench, row).job.task.id)
        assert row.sha256 in tasks.delete_task(session, task)
    with bench.database.session(read_only=True) as session:
        assert session.scalars(select(Prediction.id)).all() == []
    run_job(row.job.id, bench)


def test_the_most_probable_come_first_and_of_equals_the_first() -> None:
    probabilities = np.array([[0.2, 0.5, 0.3], [0.4, 0.2, 0.4]])
    assert list(top(probabilities, 2)) == [[(1, 0.5), (2, 0.3)], [(0, 0.4), (2, 0.4)]]
    assert list(above(probabilities, 0.3)) == [[(1, 0.5)], [(0, 0.4), (2, 0.4)]]
