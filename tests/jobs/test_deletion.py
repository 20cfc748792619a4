"""What was deleted is nowhere any more: neither in a table nor in a file of the data directory."""

from __future__ import annotations

import io
from datetime import timedelta

import pytest
from sqlalchemy import select, update

from app.cost.evidence import Evidence
from app.errors import Conflict, NotFound
from app.jobs import recalibrate
from app.jobs.atlas import refresh
from app.jobs.housekeeping import housekeep
from app.settings import Settings
from app.store import archives, estimators, finetunes, idempotency, outcomes, predictions, tasks
from app.store import neighbours as search
from app.store import tenants as everybody
from app.store.blobs import BlobStore
from app.store.estimators import Estimators
from app.store.idempotency import Answer
from app.store.indexes import FaissIndexes
from app.store.outcomes import Run
from app.store.session import Database
from app.store.tables import (
    Archive,
    Base,
    CandidateScore,
    CatalogueCard,
    Finetune,
    Job,
    Task,
    now,
)
from tests.cost.cards import CANDIDATE
from tests.jobs.test_recalibrate import report
from tests.store.samples import make_embedding, ready_task

NAME, TAG, FILE = "Zebras-of-Kenya", "stripes-tag", "zebra/secret-17.png"
IMAGES, QUESTIONS, WEIGHTS = b"bytes-of-an-archive", b"bytes-of-a-question", b"bytes-of-a-model"


class NoEngine:
    def forget_ended(self, *_: object) -> None:
        """Of the engine's tables, which hold ids of jobs alone, other tests tell."""


@pytest.fixture
def kept(database: Database, blobs: BlobStore, settings: Settings) -> str:
    """A task with all that can hang on one, among others; its id."""
    indexes = FaissIndexes(settings.index_dir)
    with database.session() as session:
        for seed in range(1, 4):
            ready_task(session, make_embedding(seed), name=f"other {seed}", tags=("fur",))
        task = ready_task(
            session,
            make_embedding(0),
            name=NAME,
            tags=(TAG,),
            archive=blobs.put(io.BytesIO(IMAGES)),
        )
        task.intake_files = [{"path": FILE, "status": "used"}]
        run_job = Job(
            tenant="acme", kind="finetune", task=task, state="succeeded", finished_at=now()
        )
        run = Finetune(
            tenant="acme", task=task, job=run_job, candidate={}, recipe={}, device={}, archives=[],
            asked={}, warnings=[], forecast={"of": NAME}, curve=[{"of": NAME}], result={"of": NAME},
        )  # fmt: skip
        score_job = Job(tenant="acme", kind="score", task=task, state="succeeded")
        session.add_all([run, score_job])
        session.flush()
        session.add(
            CandidateScore(
                task=task, job=score_job, candidate="resnet", card={}, archives=[], scores={"of": 1}
            )
        )
        asked = blobs.put(io.BytesIO(QUESTIONS))
        answer = predictions.create(session, run, asked, FILE, k=1, threshold=0.5)
        answer.result = {"images": {FILE: 0}}
        idempotency.remember(
            session, "acme", "key", "f", Answer(202, {"id": task.id}, f"/v1/tasks/{task.id}")
        )
        names = {
            "task": task.id,
            "model": "resnet",
            "recipe": "full",
            "device": "",
            "metric": "accuracy",
        }
        outcomes.add(session, "acme", [Run({**names, "stop_reason": "cap"}, 0.9, {})], [None])
        left = {"model": WEIGHTS, "card": NAME.encode()}
        finetunes.keep(
            session, run, {name: blobs.put(io.BytesIO(data)) for name, data in left.items()}
        )
        embedded, task_id = task.embedding_seq, task.id
    report(database, 9)
    recalibrate.refresh(database, Evidence.of([]))
    refresh(database, indexes, threads=1, stop=lambda: False)
    with database.session(read_only=True) as session:
        search.neighbours(
            session, indexes, "acme", embedded, metric="cosine", k=3, search_candidates=128
        )
    database.cut_log()
    return task_id


def traces(database: Database, settings: Settings, marks: dict[str, bytes]) -> set[str]:
    """Which of the marks stand anywhere, and where."""
    found = set()
    with database.session(read_only=True) as session:
        for table in Base.metadata.sorted_tables:
            for row in session.execute(select(table)):
                for value in row:
                    data = value if isinstance(value, bytes) else str(value).encode()
                    found |= {
                        f"{name} in {table.name}" for name, mark in marks.items() if mark in data
                    }
    for path in settings.data_dir.parent.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            found |= {f"{name} in a file" for name, mark in marks.items() if mark in data}
    return found


def marks_of(task_id: str, settings: Settings) -> dict[str, bytes]:
    embedding = make_embedding(0)
    marks = {
        "name": NAME.encode(),
        "tag": TAG.encode(),
        "file": FILE.encode(),
        "id": task_id.encode(),
        "images": IMAGES,
        "question": QUESTIONS,
        "model": WEIGHTS,
        "vector": embedding.vector[:8].tobytes(),
        "discriminants": embedding.discriminants[0, :8].tobytes(),
    }
    [points] = settings.index_dir.rglob("points*.column")
    # Its embedding was the last that was added.
    marks["point"] = points.read_bytes()[3 * (len(points.read_bytes()) // 4) :][:64]
    return marks


@pytest.mark.engines("embedded")
def test_of_a_deleted_task_nothing_is_left(
    database: Database, blobs: BlobStore, settings: Settings, kept: str
) -> None:
    marks = marks_of(kept, settings)
    there = traces(database, settings, marks)
    assert {each.partition(" ")[0] for each in there} == set(marks)  # or nothing is shown below
    with database.session() as session:
        digests = tasks.delete_task(session, tasks.get_own_task(session, "acme", kept))
    with database.session() as session:
        assert archives.delete_unneeded(session, blobs, digests) == 4
    at_once = {each for each in traces(database, settings, marks) if not each.endswith("a file")}
    assert at_once <= {"id in idempotency_keys", "tag in atlases", "id in estimators"}
    refresh(database, FaissIndexes(settings.index_dir), threads=1, stop=lambda: False)
    recalibrate.refresh(database, Evidence.of([]))
    later = settings.model_copy(update={"idempotency_retention_hours": 1e-9})
    housekeep(later, database, blobs, NoEngine())
    assert traces(database, settings, marks) == set()


def test_versions_that_learnt_from_a_deleted_task_serve_no_more(
    database: Database, kept: str
) -> None:
    fitted = Estimators(Evidence.of([]))
    with database.session() as session:
        before = fitted.of(session, "acme")
        tasks.delete_task(session, tasks.get_own_task(session, "acme", kept))
    with database.session(read_only=True) as session:
        assert estimators.latest(session, "acme", published=True) is None
        assert fitted.of(session, "acme") is not before
    assert recalibrate.refresh(database, Evidence.of([])) == 1
    with database.session(read_only=True) as session:
        version = estimators.latest(session, "acme", published=True, with_evidence=True)
        assert (version.version, version.n_tasks) == (2, 9)
        assert kept not in estimators.evidence_of(version).runs["task"].to_list()


def test_a_version_fitted_to_what_is_deleted_meanwhile_is_not_kept(
    database: Database, kept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    report(database, 10)
    read = outcomes.evidence

    def then_delete(*asked: object) -> Evidence:
        evidence = read(*asked)
        with database.session() as session:
            tasks.delete_task(session, tasks.get_own_task(session, "acme", kept))
        monkeypatch.undo()
        return evidence

    monkeypatch.setattr(outcomes, "evidence", then_delete)
    recalibrate.refresh(database, Evidence.of([]))
    with database.session(read_only=True) as session:
        assert estimators.latest(session, "acme", published=True) is None
    recalibrate.refresh(database, Evidence.of([]))
    with database.session(read_only=True) as session:
        assert estimators.latest(session, "acme", published=True).n_tasks == 10


@pytest.mark.engines("embedded")
def test_of_a_forgotten_tenant_nothing_is_left_and_others_keep_theirs(
    database: Database, blobs: BlobStore, settings: Settings, kept: str
) -> None:
    with database.session() as session:
        shared = blobs.put(io.BytesIO(IMAGES))
        ready_task(session, make_embedding(0), tenant="other", name="theirs", archive=shared)
        assert [each["tenant"] for each in everybody.count(session)] == ["acme", "other"]
    with database.session() as session:
        digests = everybody.forget(session, "acme")
    with database.session() as session:
        archives.delete_unneeded(session, blobs, digests)
    assert [blobs.size_bytes(shared.sha256), len(blobs.stored())] == [len(IMAGES), 1]
    with database.session(read_only=True) as session:
        [left] = everybody.count(session)
        assert (left["tenant"], left["tasks"], left["archive_bytes"]) == ("other", 1, len(IMAGES))
        for table in Base.metadata.sorted_tables:
            if "tenant" in table.c:
                assert "acme" not in session.scalars(select(table.c.tenant)).all(), table.name
        for name in ("finetunes", "outbox", "archives", "embedding_arrays", "atlas_points"):
            rows = session.execute(select(Base.metadata.tables[name])).all()
            assert len(rows) == (1 if name in ("archives", "embedding_arrays") else 0), name


def test_images_go_in_their_time_and_the_rest_stays(
    database: Database, blobs: BlobStore, settings: Settings, kept: str
) -> None:
    with database.session() as session:
        session.execute(update(Job).values(state="succeeded"))
        waiting = session.scalars(select(Task).where(Task.name == "other 1")).one()
        waiting.archives[0].sha256 = blobs.put(io.BytesIO(b"of a run that waits")).sha256
        session.add(Job(tenant="acme", kind="finetune", task=waiting, state="queued"))
    later = settings.model_copy(update={"image_retention_days": 1.0})
    housekeep(later, database, blobs, NoEngine())
    assert len(blobs.stored()) >= 2
    with database.session() as session:
        session.execute(update(Task).values(updated_at=now() - timedelta(days=2)))
    housekeep(later, database, blobs, NoEngine())
    with database.session() as session:
        assert len(session.scalars(select(Archive)).all()) == 1
        task = tasks.get_own_task(session, "acme", kept)
        assert (task.status, task.embedding is not None) == ("ready", True)
        with pytest.raises(Conflict, match="not stored"):
            tasks.add_images(session, task, blobs.put(io.BytesIO(b"more")))


def test_jobs_go_in_their_time_without_what_hangs_on_others(
    database: Database, blobs: BlobStore, settings: Settings, kept: str
) -> None:
    with database.session() as session:
        session.execute(update(Job).values(finished_at=now() - timedelta(days=2)))
    housekeep(settings.model_copy(update={"job_retention_days": 1.0}), database, blobs, NoEngine())
    with database.session(read_only=True) as session:
        assert {job.kind for job in session.scalars(select(Job))} == {"finetune", "score"}
        assert tasks.get_own_task(session, "acme", kept).status == "ready"


def test_models_go_in_their_time_but_for_those_that_are_candidates(
    database: Database, blobs: BlobStore, settings: Settings, kept: str
) -> None:
    later = settings.model_copy(update={"model_retention_days": 1.0})
    with database.session() as session:
        run = session.scalars(select(Finetune)).one()
        model = finetunes.files_of(run)["model"]
        session.execute(update(Job).values(finished_at=now() - timedelta(days=2)))
        body = {"weights": {"source": f"run:{run.id}"}}
        card = CatalogueCard(tenant="acme", kind="candidate", name="mine", body=body)
        session.add(card)
    housekeep(later, database, blobs, NoEngine())
    assert blobs.size_bytes(model.sha256) == len(WEIGHTS)
    with database.session() as session:
        session.delete(session.get(CatalogueCard, ("acme", "candidate", "mine")))
    housekeep(later, database, blobs, NoEngine())
    assert blobs.size_bytes(model.sha256) is None
    with database.session() as session:
        run = session.scalars(select(Finetune)).one()
        assert (run.result, finetunes.files_of(run)) == ({"of": NAME}, {})
        with pytest.raises(NotFound, match="not there"):
            finetunes.register(session, "acme", run.id, CANDIDATE)
