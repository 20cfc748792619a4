"""A scoring job: a task's images really seen through tiny networks, stopped and gone on."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file
from timm.data.config import resolve_data_config

from app.catalogue import CandidateCard, Weights
from app.cost.scores import scores
from app.embedding.dataset import read_labelled_images
from app.jobs import score as job
from app.jobs.bench import Workbench
from app.jobs.engine import HandBack
from app.jobs.progress import SCORING, Progress
from app.jobs.run import run_job
from app.limits import archive_limits
from app.settings import Settings
from app.store import embeddings, jobs, tasks
from app.store import scores as store
from app.store.blobs import BlobStore
from app.store.session import Database
from app.store.tables import CandidateScore, Job, Task
from tests.images import labelled_zip
from tests.jobs.conftest import TENANT
from tests.store.samples import make_embedding, ready_task
from tests.training.runs import candidate

ARCHIVE = labelled_zip(3, 16)


@pytest.fixture
def bench(settings: Settings, database: Database, blobs: BlobStore) -> Workbench:
    def no_probe(name: str) -> None:
        raise AssertionError("scoring looks through no probe")

    return Workbench(settings, database, blobs, no_probe, lambda: False)


def named(card: CandidateCard, name: str, **changes) -> CandidateCard:
    return card.model_copy(update={"name": name, **changes})


@pytest.fixture
def ask(bench: Workbench):
    """Queues a job for these candidates on a task of three shapes, the same one each time."""
    made: list[str] = []

    def asked(*cards: CandidateCard) -> str | None:
        blob = bench.blobs.put(io.BytesIO(ARCHIVE))
        with bench.database.session() as session:
            if not made:
                task = ready_task(
                    session, make_embedding(0), tenant=TENANT, name="shapes", archive=blob
                )
                task.label_kind_asked = "auto"
                made.append(task.id)
            found = store.ask(session, tasks.get_task(session, TENANT, made[0]), cards)
            return found.id if found else None

    return asked


def rows(bench: Workbench) -> dict[str, CandidateScore]:
    with bench.database.session(read_only=True) as session:
        task = session.query(Task).filter(Task.name == "shapes").one()
        return {row.candidate: row for row in store.of_task(session, task)}


def state(bench: Workbench, job_id: str) -> Job:
    with bench.database.session(read_only=True) as session:
        return jobs.get_job(session, TENANT, job_id)


def test_scores_are_those_of_the_networks_features_and_of_its_own_classes(
    bench: Workbench, ask, tmp_path: Path
) -> None:
    card = candidate(tmp_path)
    job_id = ask(card)
    run_job(job_id, bench)
    assert (state(bench, job_id).state, state(bench, job_id).task_seq) == ("succeeded", 1)
    row = rows(bench)[card.name]
    assert (row.n_images, row.problem) == (48, None)

    network = timm.create_model(card.network)
    network.load_state_dict(load_file(card.weights.source.removeprefix("file:")))
    network.eval()
    images, _ = read_labelled_images(
        [io.BytesIO(ARCHIVE)],
        size=32,
        label_kind="auto",
        limits=archive_limits(bench.settings),
        max_image_pixels=10**6,
    )
    config = resolve_data_config({}, model=network)
    mean, std = (np.array(config[name]) for name in ("mean", "std"))
    pixels = torch.from_numpy(((images.pixels / 255 - mean) / std).astype(np.float32))
    with torch.no_grad():
        maps = network.forward_features(pixels.permute(0, 3, 1, 2))
        features = network.forward_head(maps, pre_logits=True)
        of_source = network.get_classifier()(features).softmax(dim=1)
    expected = scores(features.numpy(), images.labels, of_source.numpy())
    assert row.scores == pytest.approx(expected, rel=1e-3)
    assert row.scores.keys() == expected.keys()
    assert row.scores["ridge"] > 0.5, "of three shapes"


def test_what_is_told_is_not_looked_at_again_until_images_or_card_are_others(
    bench: Workbench, ask, tmp_path: Path
) -> None:
    card = candidate(tmp_path)
    run_job(ask(card), bench)
    assert ask(card) is None
    other = named(card, card.name, parameters=card.parameters + 1)
    again = ask(other, named(card, "second"))
    with bench.database.session(read_only=True) as session:
        assert {row.candidate for row in store.of_job(session, again)} == {card.name, "second"}
    with bench.database.session() as session:
        task = session.query(Task).filter(Task.name == "shapes").one()
        job_id = tasks.add_images(session, task, bench.blobs.put(io.BytesIO(b"more"))).id
        assert store.ask(session, task, [other]) is None, "they are not looked at yet"
    with bench.database.session() as session:
        token = jobs.start_job(session, job_id, max_attempts=3).token
        row = embeddings.add(session, TENANT, "d" * 64, make_embedding(1))
        jobs.finish_job(session, job_id, token, "succeeded", embedding=row)
        task = session.query(Task).filter(Task.name == "shapes").one()
        assert store.ask(session, task, [other]) is not None


def test_a_candidate_that_cannot_be_had_says_why_and_leaves_the_others(
    bench: Workbench, ask, tmp_path: Path
) -> None:
    card = candidate(tmp_path)
    gone = Weights(source=f"file:{tmp_path}/gone.safetensors", sha256="0" * 64)
    job_id = ask(named(card, "a-gone", weights=gone), named(card, "b-there"))
    run_job(job_id, bench)
    assert state(bench, job_id).state == "succeeded"
    found = rows(bench)
    assert found["a-gone"].scores is None
    assert found["a-gone"].problem["type"] == "/problems/weights-unavailable"
    assert found["b-there"].scores is not None
    assert ask(named(card, "a-gone", weights=gone)) is not None, "it may be there by now"


def test_a_network_too_large_for_memory_says_so(
    bench: Workbench, ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_, **__):
        raise torch.cuda.OutOfMemoryError

    monkeypatch.setattr(job, "told_by", full)
    job_id = ask(candidate(tmp_path))
    run_job(job_id, bench)
    (row,) = rows(bench).values()
    assert row.problem["type"] == "/problems/memory-exhausted"


def test_a_fault_of_one_candidate_is_told_and_logged_and_the_next_is_looked_at(
    bench: Workbench, ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = job.candidate_network

    def broken(card: CandidateCard, run: Path | None):
        if card.name == "a-odd":
            raise TypeError("a tuple of classifiers")
        return load(card, run)

    monkeypatch.setattr(job, "candidate_network", broken)
    card = candidate(tmp_path)
    job_id = ask(named(card, "a-odd"), named(card, "b-fine"))
    run_job(job_id, bench)
    assert state(bench, job_id).state == "succeeded"
    found = rows(bench)
    assert found["a-odd"].problem["type"] == "/problems/internal"
    assert "tuple" not in found["a-odd"].problem["detail"]
    assert found["b-fine"].scores is not None


def test_what_was_asked_for_anew_is_not_told_by_the_job_before(
    bench: Workbench, ask, tmp_path: Path
) -> None:
    card = candidate(tmp_path)
    first = ask(card)
    with bench.database.session() as session:
        token = jobs.start_job(session, first, max_attempts=3).token
        (row,) = store.of_job(session, first)
    second = ask(named(card, card.name, parameters=card.parameters + 1))
    with bench.database.session() as session:
        store.tell(session, first, token, row.seq, n_images=1, scores={"ridge": 0.0})
        assert [each.seq for each in store.of_job(session, second)] == [row.seq]
    run_job(second, bench)
    assert rows(bench)[card.name].scores["ridge"] > 0


def at_second_candidate(monkeypatch: pytest.MonkeyPatch, act) -> None:
    report = Progress.__call__

    def listen(progress: Progress, phase: str, done: int, total: int) -> None:
        if phase == SCORING and done > total // 2:
            act()
        report(progress, phase, done, total)

    monkeypatch.setattr(Progress, "__call__", listen)


def test_a_job_that_is_handed_back_goes_on_with_what_is_left(
    bench: Workbench, ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = candidate(tmp_path)
    job_id = ask(named(card, "first"), named(card, "second"))

    def hand_back() -> None:
        raise HandBack

    at_second_candidate(monkeypatch, hand_back)
    with pytest.raises(HandBack):
        run_job(job_id, bench)
    assert state(bench, job_id).state == "queued"
    before = rows(bench)
    assert (before["first"].scores is None, before["second"].scores is None) == (False, True)

    monkeypatch.undo()
    seen: list[str] = []
    load = job.candidate_network
    monkeypatch.setattr(
        job, "candidate_network", lambda card, run: seen.append(card.name) or load(card, run)
    )
    run_job(job_id, bench)
    assert state(bench, job_id).state == "succeeded"
    assert seen == ["second"]


def test_a_cancelled_job_keeps_what_is_told(
    bench: Workbench, ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = candidate(tmp_path)
    job_id = ask(named(card, "first"), named(card, "second"))

    def cancel() -> None:
        with bench.database.session() as session:
            jobs.request_cancel(session, TENANT, job_id)

    at_second_candidate(monkeypatch, cancel)
    bench.settings.__dict__["progress_interval_seconds"] = 0.0
    run_job(job_id, bench)
    assert state(bench, job_id).state == "cancelled"
    found = rows(bench)
    assert found["first"].scores is not None
    assert found["second"].scores is None
    with bench.database.session(read_only=True) as session:
        task = session.query(Task).filter(Task.name == "shapes").one()
        assert task.status == "ready"
    assert ask(named(card, "second")) is not None


def test_of_many_images_the_same_share_of_every_class_is_looked_at(
    bench: Workbench, ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "MOST_IMAGES", 24)
    card = candidate(tmp_path)
    run_job(ask(card), bench)
    assert rows(bench)[card.name].n_images == 24


def test_scores_go_with_their_task(bench: Workbench, ask, tmp_path: Path) -> None:
    run_job(ask(candidate(tmp_path)), bench)
    with bench.database.session() as session:
        tasks.delete_task(session, session.query(Task).filter(Task.name == "shapes").one())
    with bench.database.session(read_only=True) as session:
        assert session.query(CandidateScore).all() == []
