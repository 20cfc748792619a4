"""A fine-tuning job, from a stored task to an outcome: really trained, stopped and gone on."""

from __future__ import annotations

import errno
import io
import json
import math
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pytest
import timm
import torch
from safetensors.torch import load
from sqlalchemy import select

from app.catalogue import CandidateCard, Weights
from app.errors import Unavailable
from app.jobs.bench import Workbench
from app.jobs.engine import HandBack
from app.jobs.housekeeping import housekeep
from app.jobs.progress import Progress
from app.jobs.run import run_job
from app.store import finetunes, jobs, outcomes, scores, tasks
from app.store.blobs import ANY_AGE, UNAVAILABLE, Blob, BlobStore
from app.store.finetunes import Asked
from app.store.tables import Finetune, FinetuneFile
from app.training import checkpoint
from app.training.names import FILES
from app.training.package import write_package
from tests.images import labelled_zip
from tests.jobs.conftest import CPU, FORECAST, TENANT
from tests.training.runs import FULL, HEAD, candidate, run


def read(bench: Workbench, finetune_id: str) -> Finetune:
    with bench.database.session(read_only=True) as session:
        row = finetunes.get(session, TENANT, finetune_id)
        assert row.job.state
        assert row.task.status
        return row


def files(bench: Workbench, finetune_id: str) -> dict[str, bytes]:
    """By name, as the store has them; nothing of the run is left beside it."""
    assert not list(bench.settings.finetune_dir.glob("*"))
    kept = finetunes.files_of(read(bench, finetune_id))
    return {name: content(bench, blob.sha256) for name, blob in kept.items()}


def content(bench: Workbench, sha256: str) -> bytes:
    with bench.blobs.open(sha256) as stream:
        return stream.read()


@pytest.fixture
def every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints are put into the store whatever time it takes."""
    monkeypatch.setattr("app.jobs.finetune.CHECKPOINTS_SHARE", math.inf)


def test_a_run_leaves_a_model_an_outcome_and_its_task_as_it_was(bench: Workbench, begin) -> None:
    finetune_id, job_id = begin()
    run_job(job_id, bench)
    row = read(bench, finetune_id)
    assert (row.job.state, row.task.status, row.job.problem) == ("succeeded", "ready", None)
    assert [epoch["number"] for epoch in row.curve] == [1, 2, 3, 4]
    assert row.result["verdict"]["images"] == 12
    assert row.result["verdict"]["accuracy"] == pytest.approx(row.curve[-1]["accuracy"])
    left = files(bench, finetune_id)
    assert left.keys() == FILES.keys()

    config = json.loads(left["config"])
    model = timm.create_model(config["architecture"], num_classes=config["num_classes"])
    model.load_state_dict(load(left["model"]))
    assert config["label_names"] == ["circle", "square", "triangle"]
    assert b"# net, fine-tuned on shapes" in left["card"]

    with bench.database.session(read_only=True) as session:
        outcome = outcomes.get_outcome(session, TENANT, row.outcome_id)
    assert outcome.value == row.result["verdict"]["accuracy"]
    assert (outcome.task, outcome.recipe, outcome.stop_reason) == (row.task.id, "small", "cap")
    assert outcome.numbers["n_train"] == 36
    assert outcome.numbers["steps"] == row.result["steps"] == 12
    assert outcome.numbers["seconds"] == row.result["seconds"] > 0
    assert outcome.forecast["seconds"] == FORECAST["seconds"], "frozen as it was"
    assert outcome.forecast["counted"]["seconds"] == 60, "counted for the half that was made"


def test_what_a_traced_run_says_is_in_its_result(bench: Workbench, begin) -> None:
    finetune_id, job_id = begin(FULL.model_copy(update={"epochs": 5}), trace_every=1)
    run_job(job_id, bench)
    result = read(bench, finetune_id).result
    assert len(result["information"]) == 5
    assert result["information_says"].startswith("The information in the weights")
    finetune_id, job_id = begin(HEAD.model_copy(update={"epochs": 5}), trace_every=1)
    run_job(job_id, bench)
    assert read(bench, finetune_id).result["information_says"] is None, "a classifier alone"


def at_step(monkeypatch: pytest.MonkeyPatch, step: int, act) -> None:
    report = Progress.__call__

    def listen(progress: Progress, phase: str, done: int, total: int) -> None:
        if (phase, done) == ("training", step):
            act()
        report(progress, phase, done, total)

    monkeypatch.setattr(Progress, "__call__", listen)


def steps_heard(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    steps: list[int] = []
    report = Progress.__call__

    def listen(progress: Progress, phase: str, done: int, total: int) -> None:
        if phase == "training":
            steps.append(done)
        report(progress, phase, done, total)

    monkeypatch.setattr(Progress, "__call__", listen)
    return steps


def elsewhere(bench: Workbench, directory: Path) -> Workbench:
    """The bench of a worker on another machine."""
    return replace(bench, settings=bench.settings.model_copy(update={"data_dir": directory}))


def test_a_run_that_is_handed_back_goes_on_where_it_was_on_another_machine(
    bench: Workbench, begin, every_epoch: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, job_id = begin()
    run_job(job_id, bench)

    finetune_id, job_id = begin()
    stopping: list[bool] = []
    leaving = replace(bench, stopping=lambda: bool(stopping))
    with monkeypatch.context() as patch:
        at_step(patch, 8, lambda: stopping.append(True))
        with pytest.raises(HandBack):
            run_job(job_id, leaving)
    row = read(bench, finetune_id)
    assert (row.job.state, row.task.status, row.job.attempts) == ("queued", "ready", 0)
    assert [epoch["number"] for epoch in row.curve] == [1, 2]
    assert files(bench, finetune_id).keys() == {"checkpoint"}
    steps = steps_heard(monkeypatch)
    run_job(job_id, elsewhere(bench, tmp_path / "other"))
    assert min(steps) == 7, "three an epoch, of which two were over"
    assert files(bench, finetune_id)["model"] == files(bench, whole)["model"]
    assert read(bench, finetune_id).job.state == "succeeded"
    assert len(bench.blobs.stored()) <= 1 + 2 * len(FILES) - 2, "model and config are the same"


def test_a_checkpoint_takes_the_place_of_the_last_and_goes_with_the_run(
    bench: Workbench, begin, every_epoch: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many blobs as images and checkpoints: of a run that goes on, and of one that is over."""
    _, job_id = begin()
    stored: dict[int, int] = {}
    for step in (2, 5, 8, 11):
        at_step(
            monkeypatch,
            step,
            lambda step=step: stored.update({step: len(bench.blobs.stored())}),
        )
    run_job(job_id, bench)
    assert stored == {2: 1, 5: 2, 8: 2, 11: 2}
    assert len(bench.blobs.stored()) == 1 + len(FILES)


def test_a_checkpoint_that_cannot_be_put_leaves_the_last_good_one(
    bench: Workbench, begin, every_epoch: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store is away while epochs 2 and 3 end: training goes on, and a kill costs these two."""
    whole, job_id = begin()
    run_job(job_id, bench)
    finetune_id, job_id = begin()

    class Killed(BaseException):
        pass

    def away(*_: object) -> None:
        raise Unavailable(UNAVAILABLE, "It does not answer.", "Wait.")

    def die() -> None:
        raise Killed

    with monkeypatch.context() as patch:
        at_step(patch, 4, lambda: patch.setattr(type(bench.blobs), "put", away))
        at_step(patch, 10, die)
        with pytest.raises(Killed):
            run_job(job_id, bench)
    assert files(bench, finetune_id).keys() == {"checkpoint"}
    steps = steps_heard(monkeypatch)
    run_job(job_id, bench)
    assert min(steps) == 4
    assert files(bench, finetune_id)["model"] == files(bench, whole)["model"]


def test_a_run_whose_checkpoint_is_lost_begins_anew(
    bench: Workbench, begin, every_epoch: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    finetune_id, job_id = begin()
    stopping: list[bool] = []
    with monkeypatch.context() as patch:
        at_step(patch, 8, lambda: stopping.append(True))
        with pytest.raises(HandBack):
            run_job(job_id, replace(bench, stopping=lambda: bool(stopping)))
    bench.blobs.delete(finetunes.files_of(read(bench, finetune_id))["checkpoint"].sha256)
    run_job(job_id, bench)
    assert read(bench, finetune_id).job.state == "succeeded"


def test_checkpoints_take_a_small_share_of_the_time(
    bench: Workbench, begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Putting takes ten times as long as an epoch: of forty epochs few are put."""
    puts: list[float] = []
    put = type(bench.blobs).put

    def slowly(blobs: BlobStore, stream: BinaryIO) -> Blob:
        puts.append(time.monotonic())
        time.sleep(0.3)
        return put(blobs, stream)

    monkeypatch.setattr(type(bench.blobs), "put", slowly)
    _, job_id = begin(HEAD)
    run_job(job_id, bench)
    assert len(puts) - len(FILES) < 10


def test_a_run_can_be_taken_back_and_its_files_go(
    bench: Workbench, begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    finetune_id, job_id = begin()

    def cancel() -> None:
        with bench.database.session() as session:
            jobs.request_cancel(session, TENANT, job_id)

    at_step(monkeypatch, 4, cancel)
    bench = replace(
        bench, settings=bench.settings.model_copy(update={"progress_interval_seconds": 1e-9})
    )
    run_job(job_id, bench)
    row = read(bench, finetune_id)
    assert (row.job.state, row.task.status, row.outcome_id) == ("cancelled", "ready", None)
    checkpoint = finetunes.files_of(row)["checkpoint"].sha256
    assert bench.blobs.size_bytes(checkpoint) is None


class NoEngine:
    def forget_ended(self, before: object) -> None: ...


def test_housekeeping_deletes_what_killed_workers_left_and_nothing_of_runs(
    bench: Workbench, begin, every_epoch: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folders of runs that are over, and blobs that nobody names."""
    monkeypatch.setattr("app.jobs.housekeeping.UPLOAD_SECONDS", ANY_AGE)
    ended, job_id = begin()
    run_job(job_id, bench)
    going_on, job_id = begin()
    stopping: list[bool] = []
    with monkeypatch.context() as patch:
        at_step(patch, 8, lambda: stopping.append(True))
        with pytest.raises(HandBack):
            run_job(job_id, replace(bench, stopping=lambda: bool(stopping)))
    kept = set(bench.blobs.stored())
    bench.blobs.put(io.BytesIO(b"a checkpoint that nobody was told of"))
    for name in (ended, going_on):
        (bench.settings.finetune_dir / name).mkdir()
    housekeep(bench.settings, bench.database, bench.blobs, NoEngine())
    assert set(bench.blobs.stored()) == kept
    assert [path.name for path in bench.settings.finetune_dir.iterdir()] == [going_on]


def test_a_run_that_cannot_be_made_fails_with_a_remedy(
    bench: Workbench, begin, tmp_path: Path
) -> None:
    finetune_id, job_id = begin()
    (tmp_path / "test_resnet.safetensors").write_bytes(b"others")
    run_job(job_id, bench)
    row = read(bench, finetune_id)
    assert (row.job.state, row.task.status) == ("failed", "ready")
    assert row.job.problem["type"].endswith("weights-changed")
    assert row.job.problem["remedy"]


def test_a_run_cut_short_has_a_model_and_is_no_outcome(bench: Workbench, begin) -> None:
    finetune_id, job_id = begin(FULL.model_copy(update={"epochs": 100_000}), budget_seconds=1.0)
    run_job(job_id, bench)
    row = read(bench, finetune_id)
    assert (row.job.state, row.result["ended"], row.outcome_id) == ("succeeded", "budget", None)
    assert "model" in files(bench, finetune_id)


def test_what_one_asked_wrongly_is_logged_without_a_trace(
    bench: Workbench, begin, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, job_id = begin(HEAD, budget_seconds=1e-6)
    run_job(job_id, bench)
    (theirs,) = [record for record in caplog.records if record.message == "job.failed"]
    assert theirs.levelname == "WARNING"
    assert not theirs.exc_info
    assert theirs.fields == {"job_id": job_id, "code": "budget-too-small"}
    caplog.clear()

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("ours")

    monkeypatch.setattr("app.jobs.finetune.fine_tune", broken)
    _, job_id = begin(HEAD)
    run_job(job_id, bench)
    (ours,) = [record for record in caplog.records if record.message == "job.failed"]
    assert (ours.levelname, ours.fields["code"]) == ("ERROR", "RuntimeError")
    assert ours.exc_info


def test_a_run_is_of_the_images_that_it_was_asked_for(bench: Workbench, begin) -> None:
    """More images do not wait for it, nor it for them."""
    finetune_id, job_id = begin()
    more = bench.blobs.put(io.BytesIO(labelled_zip(3, 4, seed=9)))
    with bench.database.session() as session:
        task = tasks.get_own_task(session, TENANT, read(bench, finetune_id).task.id)
        assert tasks.add_images(session, task, more).kind == "embed_task"
        later = finetunes.create(
            session,
            task,
            CandidateCard.model_validate(read(bench, finetune_id).candidate, strict=False),
            FULL,
            CPU,
            Asked(),
            warnings=[],
            forecast=None,
        )
        assert len(later.archives) == 1, "the new version may yet be refused"
    run_job(job_id, bench)
    row = read(bench, finetune_id)
    assert (row.job.state, row.result["n_train"]) == ("succeeded", 36)


def test_a_run_that_comes_on_is_not_given_up_for_being_killed(
    bench: Workbench, begin, every_epoch: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that dies takes an attempt; an epoch gives them back."""
    finetune_id, job_id = begin(FULL.model_copy(update={"epochs": 8}))

    class Killed(BaseException):
        pass

    def die() -> None:
        raise Killed

    for step in (4, 7, 10, 13, 16):
        with monkeypatch.context() as patch:
            at_step(patch, step, die)
            with pytest.raises(Killed):
                run_job(job_id, bench)
    run_job(job_id, bench)
    row = read(bench, finetune_id)
    assert (row.job.state, len(row.curve)) == ("succeeded", 8)


def test_a_full_disk_is_waited_for(
    bench: Workbench, begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    finetune_id, job_id = begin()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.torch, "save", full)
        with pytest.raises(Unavailable, match="is full"):
            run_job(job_id, bench)
    assert read(bench, finetune_id).job.state == "queued"
    run_job(job_id, bench)
    assert read(bench, finetune_id).job.state == "succeeded"


@pytest.fixture
def small_disk(bench: Workbench) -> Iterator[Path]:
    """Of 32 MiB, where a run writes what it then puts into the store."""
    directory = bench.settings.finetune_dir
    directory.mkdir(parents=True)
    asked = ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(directory)]
    if subprocess.run(asked, capture_output=True).returncode:
        pytest.skip("only root may mount a small disk")
    yield directory
    subprocess.run(["umount", "--lazy", str(directory)], check=True)  # models are mapped


def fill(directory: Path) -> None:
    with (directory / "filler").open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(1024)):
            pass


@pytest.mark.parametrize(("when", "epochs"), [("checkpoint", 2), ("model", 4)])
def test_a_disk_that_is_really_full_costs_an_epoch_at_most(
    when: str,
    epochs: int,
    bench: Workbench,
    begin,
    small_disk: Path,
    every_epoch: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole, job_id = begin()
    run_job(job_id, bench)
    finetune_id, job_id = begin()

    def filled_first(*arguments, **named) -> None:
        fill(small_disk)
        write_package(*arguments, **named)

    with monkeypatch.context() as patch:
        if when == "checkpoint":
            at_step(patch, 8, lambda: fill(small_disk))
        else:
            patch.setattr("app.jobs.finetune.write_package", filled_first)
        with pytest.raises(Unavailable, match=f"is full: the {when} was not written"):
            run_job(job_id, bench)
    assert (small_disk / "filler").stat().st_size > 0
    assert read(bench, finetune_id).job.state == "queued"
    (small_disk / "filler").unlink()
    (kept,) = files(bench, finetune_id).values()
    assert len(torch.load(io.BytesIO(kept), weights_only=True)["curve"]) == epochs

    run_job(job_id, bench)
    assert read(bench, finetune_id).job.state == "succeeded"
    a, b = (model_of(bench, name) for name in (whole, finetune_id))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_transformers_card_says_how_to_build_it(tmp_path: Path) -> None:
    start = candidate(tmp_path, "test_vit")
    found = run(tmp_path, FULL.model_copy(update={"epochs": 1}), start=start)
    classes = ("red", "green", "blue")
    write_package(tmp_path, found, start, FULL, classes, "single_label", task="hues")
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["model_args"] == {"img_size": 32}
    code = (tmp_path / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
    paths = {name: f"{tmp_path / name}" for name in ("config.json", "model.safetensors")}
    for name, path in paths.items():
        code = code.replace(f'"{name}"', repr(path))
    exec(code, {})  # what the card tells people to run


def test_a_task_takes_its_runs_with_it(bench: Workbench, begin) -> None:
    finetune_id, job_id = begin()
    run_job(job_id, bench)
    left = {blob.sha256 for blob in finetunes.files_of(read(bench, finetune_id)).values()}
    with bench.database.session() as session:
        gone = tasks.delete_task(
            session, tasks.get_own_task(session, TENANT, read(bench, finetune_id).task.id)
        )
        assert left < set(gone)
    with bench.database.session(read_only=True) as session:
        assert session.scalars(select(FinetuneFile)).all() == []
        assert finetunes.list_finetunes(session, TENANT, limit=10) == ([], None)


def model_of(bench: Workbench, finetune_id: str) -> dict[str, torch.Tensor]:
    return load(files(bench, finetune_id)["model"])


def as_candidate(bench: Workbench, finetune_id: str) -> CandidateCard:
    model = finetunes.files_of(read(bench, finetune_id))["model"]
    weights = Weights(source=f"run:{finetune_id}", sha256=model.sha256)
    card = CandidateCard.model_validate(read(bench, finetune_id).candidate, strict=False)
    return card.model_copy(update={"name": "child", "weights": weights})


def test_the_model_of_a_run_is_gone_on_from_on_another_task(bench: Workbench, begin) -> None:
    first, job_id = begin()
    run_job(job_id, bench)
    still = FULL.model_copy(update={"learning_rate": 1e-30, "weight_decay": 0.0, "epochs": 1})
    other = labelled_zip(5, 8, seed=3)
    second, job_id = begin(still, images=other, card=as_candidate(bench, first))
    run_job(job_id, bench)
    row = read(bench, second)
    assert (row.job.state, row.job.problem) == ("succeeded", None)
    before, after = model_of(bench, first), model_of(bench, second)
    assert (len(before["fc.weight"]), len(after["fc.weight"])) == (3, 5)
    assert torch.equal(before["layer1.0.conv1.weight"], after["layer1.0.conv1.weight"])
    assert b'base_model: "child"' in files(bench, second)["card"]


def test_the_features_of_a_runs_model_tell_of_its_own_task(bench: Workbench, begin) -> None:
    first, job_id = begin(FULL.model_copy(update={"epochs": 20}))
    run_job(job_id, bench)
    card = as_candidate(bench, first)
    stranger = card.model_copy(
        update={"name": "stranger", "weights": Weights(source=f"run:{'0' * 32}", sha256="0" * 64)}
    )
    with bench.database.session() as session:
        task = finetunes.get(session, TENANT, first).task
        job_id = scores.ask(session, task, [card, stranger]).id
    run_job(job_id, bench)
    with bench.database.session(read_only=True) as session:
        child, unknown = scores.of_task(session, finetunes.get(session, TENANT, first).task)
    assert child.scores["leep"] > -1.0, "its classes are the task's"
    assert unknown.problem["type"] == "/problems/unknown-finetune"


def test_the_model_of_somebody_elses_run_is_not_gone_on_from(bench: Workbench, begin) -> None:
    first, job_id = begin(FULL.model_copy(update={"epochs": 1}))
    run_job(job_id, bench)
    second, job_id = begin(card=as_candidate(bench, first))
    with bench.database.session() as session:
        finetunes.get(session, TENANT, first).tenant = "somebody else"
    run_job(job_id, bench)
    row = read(bench, second)
    assert (row.job.state, row.task.status) == ("failed", "ready")
    assert row.job.problem["type"].endswith("unknown-finetune")
