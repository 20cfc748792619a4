"""Damage of each kind, made by hand: found, repaired where that is safe, and found no more."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine, delete, make_url, select, text, update
from sqlalchemy.orm import Session

from app.settings import Settings
from app.store import finetunes, predictions, turns, workers
from app.store.blobs import Blob, BlobStore
from app.store.check import check
from app.store.findings import Finding
from app.store.session import Database
from app.store.tables import (
    Atlas,
    AtlasPoint,
    CatalogueCard,
    EstimatorVersion,
    Finetune,
    Job,
    Outbox,
    Prediction,
    Task,
    Worker,
    now,
)
from app.training.names import FILES
from tests.engines import Engines
from tests.jobs.test_recalibrate import report
from tests.store.samples import accept_task, make_embedding, ready_task
from tests.store.test_backups import learn

LONG_AGO = now() - timedelta(days=2)


@dataclass(frozen=True)
class Kept:
    """A store of a ready task with a run and an answer, one that waits, a map, an estimator."""

    database: Database
    blobs: BlobStore
    settings: Settings

    def check(self, *, repair: bool = False) -> list[Finding]:
        with self.database.session(read_only=not repair) as session:
            return check(session, self.blobs, self.settings, deep=False, repair=repair).findings

    def harm(self, harm: Callable[[Session], None]) -> None:
        with self.database.session() as session:
            harm(session)


@pytest.fixture
def kept(
    database: Database,
    blobs: BlobStore,
    engines: Engines,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Kept]:
    monkeypatch.setattr("app.store.check.UPLOAD_SECONDS", -86_400.0)
    settings = Settings(**engines.settings, data_dir=tmp_path)
    with database.session() as session:
        ready, other = (
            ready_task(
                session, make_embedding(seed), archive=blobs.put(io.BytesIO(b"pictures %d" % seed))
            )
            for seed in range(2)
        )
        accept_task(session, archive=blobs.put(io.BytesIO(b"that wait")))
        ended = Job(
            tenant="acme", kind="finetune", task=ready, state="succeeded", finished_at=now()
        )
        run = Finetune(
            tenant="acme", task=ready, job=ended, candidate={}, recipe={}, device={}, archives=[],
            asked={}, warnings=[], forecast=None, curve=[], result={},
        )  # fmt: skip
        session.add(run)
        session.flush()
        asked = blobs.put(io.BytesIO(b"asked about"))
        predictions.create(session, run, asked, "a.zip", k=1, threshold=0.5)
        answered = predictions.create(session, run, asked, "b.zip", k=1, threshold=0.5)
        answered.result = {"images": {"a.png": 0}}
        answered.job.state, answered.job.finished_at = "succeeded", now()
        session.execute(delete(Outbox).where(Outbox.job_id == answered.job.id))
        body = {"weights": {"source": f"run:{run.id}"}}
        session.add(CatalogueCard(tenant="acme", kind="candidate", name="mine", body=body))
        drawn = Atlas(
            tenant="acme", space_id="space", signature="", n_tasks=2, n_settled=2, clusters=[],
            dendrogram=[],
        )  # fmt: skip
        session.add(drawn)
        session.flush()
        session.add_all(
            AtlasPoint(
                atlas_seq=drawn.seq, task_seq=each.seq, embedding_seq=each.embedding_seq, x=0, y=0,
                complexity=1,
            )
            for each in (ready, other)
        )  # fmt: skip
        files = {name: blobs.put(io.BytesIO(name.encode())) for name in FILES}
        finetunes.keep(session, run, files)
    report(database, 2)
    learn(database)
    with database.session() as session:
        session.execute(update(EstimatorVersion).values(calibration={"accuracy": None, **COUNTED}))
    kept = Kept(database, blobs, settings)
    assert kept.check() == []
    yield kept


COUNTED = {"seconds": None, "energy_wh": None, "memory_mib": None}


def first(session: Session) -> Task:
    return session.scalars(select(Task).order_by(Task.seq)).first()


def waiting(session: Session) -> Job:
    return session.scalars(select(Job).where(Job.state == "queued", Job.kind == "embed_task")).one()


def a_task_without_its_job(session: Session) -> None:
    job = waiting(session)
    session.execute(delete(Outbox).where(Outbox.job_id == job.id))
    session.delete(job)


def a_ready_task_that_waits(session: Session) -> None:
    first(session).status = "embedding"


def a_waiting_task_that_ended(session: Session) -> None:
    waiting(session).task.status = "refused"


def a_ready_task_without_embedding(session: Session) -> None:
    first(session).embedding_seq = None


def a_task_that_moves_nowhere(session: Session) -> None:
    task = first(session)
    task.next_embedding_seq = task.embedding_seq


def an_outbox_row_of_nothing(session: Session) -> None:
    session.add(Outbox(job_id="f" * 32))


def an_outbox_row_of_a_job_that_ended(session: Session) -> None:
    ended = session.scalars(select(Job.id).where(Job.state == "succeeded")).first()
    session.add(Outbox(job_id=ended))


def a_job_that_ended_at_no_time(session: Session) -> None:
    session.execute(update(Job).where(Job.state == "succeeded").values(finished_at=None))


def an_embedding_of_no_task(session: Session) -> None:
    task = ready_task(session, make_embedding(7), archive=first(session).archives[0])
    task.embedding.created_at = LONG_AGO
    session.flush()
    session.execute(delete(Job).where(Job.task_seq == task.seq))
    session.delete(task)


def an_atlas_with_too_many_points(session: Session) -> None:
    session.execute(update(Atlas).values(n_tasks=1))


def an_atlas_with_anothers_task(session: Session) -> None:
    session.execute(update(Atlas).values(tenant="other"))


def an_estimator_whose_evidence_is_torn(session: Session) -> None:
    session.execute(update(EstimatorVersion).values(evidence=b"torn"))


def an_estimator_whose_evidence_is_gone(session: Session) -> None:
    session.execute(update(EstimatorVersion).values(evidence=None))


def a_candidate_whose_run_is_gone(session: Session) -> None:
    card = session.get(CatalogueCard, ("acme", "candidate", "mine"))
    card.body = {"weights": {"source": f"run:{'0' * 32}"}}


@pytest.mark.parametrize(
    ("harm", "kind"),
    [
        (a_task_without_its_job, "task"),
        (a_ready_task_that_waits, "task"),
        (a_waiting_task_that_ended, "task"),
        (a_ready_task_without_embedding, "task"),
        (a_task_that_moves_nowhere, "task"),
        (an_outbox_row_of_nothing, "job"),
        (an_outbox_row_of_a_job_that_ended, "job"),
        (a_job_that_ended_at_no_time, "job"),
        (an_embedding_of_no_task, "embedding"),
        (an_atlas_with_too_many_points, "atlas"),
        (an_atlas_with_anothers_task, "atlas"),
        (an_estimator_whose_evidence_is_torn, "estimator"),
        (an_estimator_whose_evidence_is_gone, "estimator"),
        (a_candidate_whose_run_is_gone, "model"),
    ],
)
def test_damage_is_found_repaired_and_found_no_more(
    kept: Kept, harm: Callable[[Session], None], kind: str
) -> None:
    kept.harm(harm)
    found = kept.check()
    assert kind in {finding.kind for finding in found}
    assert not any(finding.mended for finding in found)
    assert all(finding.remedy for finding in found)
    assert all(finding.mended for finding in kept.check(repair=True))
    assert kept.check() == []


def test_a_stuck_task_is_told_what_to_do_and_a_ready_one_keeps_its_embedding(kept: Kept) -> None:
    kept.harm(a_task_without_its_job)
    kept.harm(a_ready_task_that_waits)
    kept.check(repair=True)
    with kept.database.session(read_only=True) as session:
        ready, _, stuck = session.scalars(select(Task).order_by(Task.seq))
        assert (ready.status, ready.embedding_seq is not None) == ("ready", True)
        assert (stuck.status, stuck.problem["remedy"]) == ("failed", "Send it again.")


def test_archives_that_nothing_refers_to_are_deleted_and_no_others(kept: Kept) -> None:
    needed = set(kept.blobs.stored())
    kept.blobs.put(io.BytesIO(b"nobody's"))
    [finding] = kept.check()
    assert (finding.kind, finding.mended) == ("archive", False)
    [finding] = kept.check(repair=True)
    assert finding.mended
    assert (kept.check(), set(kept.blobs.stored())) == ([], needed)


def test_what_is_lost_is_found_and_no_repair_hides_it(kept: Kept) -> None:
    with kept.database.session() as session:
        kept.blobs.delete(first(session).archives[0].sha256)
        asked = session.scalars(select(Prediction)).first()
        kept.blobs.delete(asked.sha256)
        run = session.scalars(select(Finetune)).one()
        kept.blobs.delete(finetunes.files_of(run)["config"].sha256)
        session.execute(
            update(Job).where(Job.kind == "predict").values(state="succeeded", finished_at=now())
        )
        session.execute(delete(Outbox).where(Outbox.job_id == asked.job.id))
        waits = predictions.create(session, run, Blob("e" * 64, 1), "c", k=1, threshold=0.5)
    for repair in (False, True):
        found = kept.check(repair=repair)
        assert not any(finding.mended for finding in found)
        assert sorted(finding.kind for finding in found) == [
            "archive",
            "model",
            "prediction",
            "prediction",
        ]
        told = " ".join(finding.detail for finding in found)
        for what in (run.id, "config", asked.id, waits.sha256):
            assert what in told


def test_jobs_that_wait_while_no_worker_is_up_are_told_after_a_while(kept: Kept) -> None:
    with kept.database.session() as session:
        session.execute(update(Outbox).values(created_at=LONG_AGO))
    [finding] = kept.check()
    assert finding.detail.startswith("2 jobs have waited")
    assert "task2vec worker" in finding.remedy
    with kept.database.session() as session:
        workers.register(session, Worker(id="w", probe="", space_id="", device="", code_version=""))
    assert kept.check() == []


@pytest.fixture
def engine_knows(kept: Kept) -> Iterator[Callable[[str, str], None]]:
    """Writes what the job engine would have written long ago."""
    url = make_url(kept.settings.engine_url)
    engine = create_engine(url)
    schema = "dbos." if url.get_backend_name() == "postgresql" else ""
    with engine.begin() as connection:
        if schema:
            connection.execute(text("CREATE SCHEMA IF NOT EXISTS dbos"))
            connection.execute(text("DROP TABLE IF EXISTS dbos.workflow_status CASCADE"))
        connection.execute(
            text(
                f"CREATE TABLE {schema}workflow_status (workflow_uuid TEXT PRIMARY KEY, status TEXT,"
                " created_at BIGINT, updated_at BIGINT, completed_at BIGINT)"
            )
        )

    def write(job_id: str, status: str) -> None:
        with engine.begin() as connection:
            connection.execute(
                text(f"INSERT INTO {schema}workflow_status VALUES (:id, :status, 1, 1, NULL)"),
                {"id": job_id, "status": status},
            )

    yield write
    if schema:
        with engine.begin() as connection:
            connection.execute(text("DROP TABLE dbos.workflow_status"))
    engine.dispose()


@pytest.mark.engines("embedded")
def test_jobs_and_the_engines_records_are_held_against_each_other(
    kept: Kept, engine_knows: Callable[[str, str], None]
) -> None:
    with kept.database.session() as session:
        job = waiting(session)
        session.execute(delete(Outbox).where(Outbox.job_id == job.id))
        session.execute(update(Job).values(updated_at=LONG_AGO))
        ended = session.scalars(select(Job.id).where(Job.state == "succeeded")).first()
    engine_knows(ended, "PENDING")
    engine_knows("f" * 32, "ENQUEUED")
    engine_knows("e" * 32, "SUCCESS")
    lost, void = kept.check()
    assert lost.detail.startswith("1 jobs are unfinished")
    assert void.detail.startswith("The job engine is still to do 2 jobs")
    assert all(finding.mended for finding in kept.check(repair=True))
    assert kept.check() == []
    with kept.database.session() as session:
        assert job.id in {each.id for each in turns.take(session, 9, None)}


def test_what_the_engine_took_just_now_is_no_finding(
    kept: Kept, engine_knows: Callable[[str, str], None]
) -> None:
    with kept.database.session() as session:
        session.execute(delete(Outbox))
    assert kept.check() == []
