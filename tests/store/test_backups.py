"""A backup holds everything, of a service that goes on; what is restored is what there was."""

from __future__ import annotations

import hashlib
import io
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from sqlalchemy import MetaData, Table, create_engine, func, insert, select, text

from app.errors import Conflict, InvalidRequest, NotFound, Unavailable
from app.store import backups, estimators, finetunes, jobs, keys, outcomes, tasks, uploads
from app.store import neighbours as search
from app.store.backups import Backups, Manifest
from app.store.blobs import Blob, BlobStore, open_blobs
from app.store.indexes import open_indexes
from app.store.restore import System, restore, verify
from app.store.session import Database, revisions
from app.store.tables import (
    PUBLIC,
    Base,
    Embedding,
    EstimatorVersion,
    Finetune,
    Job,
    Outbox,
    Task,
    Upload,
    Worker,
    now,
)
from tests.engines import EMBEDDED, SERVERS, Engines, emptied, unused
from tests.jobs.test_recalibrate import report
from tests.store.conftest import MIGRATIONS
from tests.store.samples import Heard, accept_task, make_embedding, ready_task

MODEL = {"model": b"weights", "config": b"{}", "card": b"# a model"}
into_both = pytest.mark.parametrize("empty", [EMBEDDED, SERVERS], indirect=True)
to_both = pytest.mark.parametrize("place", ["directory", "bucket"], indirect=True)
embedded = pytest.mark.engines(EMBEDDED)
PASSING = (Upload.__tablename__, Worker.__tablename__)
ROWS = [table for table in Base.metadata.sorted_tables if table.name not in PASSING]


@dataclass(frozen=True)
class Store:
    """Whatever a service keeps, on engines of one kind."""

    database: Database
    blobs: BlobStore
    directory: Path

    @property
    def system(self) -> System:
        return System(self.database, self.blobs, self.directory / "index", MIGRATIONS)

    def back_up(self, place: Backups) -> tuple[str, Manifest]:
        return backups.make(self.database, self.blobs, MIGRATIONS, place)

    def rows(self) -> dict[str, list[tuple[Any, ...]]]:
        with self.database.session(read_only=True) as session:
            return {
                table.name: [
                    tuple(row)
                    for row in session.execute(select(table).order_by(*table.primary_key.columns))
                ]
                for table in ROWS
            }

    def add_task(self, seed: int, **more: Any) -> Task:
        archive = self.blobs.put(io.BytesIO(b"pictures %d" % seed))
        with self.database.session() as session:
            return ready_task(session, make_embedding(seed), archive=archive, **more)

    def add_run(self, task: Task, state: str, files: dict[str, bytes]) -> int:
        with self.database.session() as session:
            task = session.get(Task, task.seq)
            job = Job(tenant="acme", kind="finetune", task=task, state=state)
            run = Finetune(
                tenant="acme", task=task, job=job, candidate={}, recipe={}, device={},
                archives=[], asked={}, warnings=[], forecast=None, curve=[], result={"ended": None},
            )  # fmt: skip
            session.add(run)
        self.keep(run.seq, files)
        return run.seq

    def keep(self, run_seq: int, files: dict[str, bytes]) -> None:
        blobs = {name: self.blobs.put(io.BytesIO(data)) for name, data in files.items()}
        with self.database.session() as session:
            run = session.get(Finetune, run_seq)
            before = [blob.sha256 for blob in finetunes.files_of(run).values()]
            finetunes.keep(session, run, blobs)
        for sha256 in before:
            self.blobs.delete(sha256)

    def delete(self, task: Task) -> None:
        with self.database.session() as session:
            own = tasks.get_own_task(session, "acme", task.id)
            digests = tasks.delete_task(session, own)
        for sha256 in digests:
            self.blobs.delete(sha256)


def learn(database: Database) -> None:
    """A version of the estimator that is fitted to what was reported."""
    with database.session() as session:
        evidence = outcomes.evidence(session, "acme")
        version = EstimatorVersion(
            tenant="acme", published=True, reason="the first", newest=1, n_quarantined=0,
            n_outcomes=1, n_tasks=1, n_candidates=1, calibration={}, report={}, code_version="0",
        )  # fmt: skip
        estimators.add(session, version, evidence, ["acme"])


def opened(engines: Engines, directory: Path) -> Store:
    database = Database(engines.database_url)
    database.migrate(MIGRATIONS)
    return Store(database, open_blobs(engines.blob_url), directory)


@pytest.fixture
def store(engines: Engines, tmp_path: Path) -> Iterator[Store]:
    """Some of everything: tasks, one that waits, one at work, outcomes, keys, a run."""
    store = opened(engines, tmp_path)
    kept = [store.add_task(seed, name=f"cats {seed}", tags=("fur",)) for seed in range(4)]
    store.add_run(kept[0], "succeeded", MODEL)
    store.add_task(9, tenant=PUBLIC, name="shipped")
    report(store.database, 2)
    learn(store.database)
    with store.database.session() as session:
        keys.create_key(session, "acme", "ci")
        for state, data in (("queued", b"waits"), ("running", b"works")):
            _, job = accept_task(session, name=state, archive=store.blobs.put(io.BytesIO(data)))
            if state == "running":
                jobs.start_job(session, job.id, max_attempts=3)
        session.add(Worker(id="w", probe="", space_id="", device="", code_version=""))
        uploads.create(session, "acme", "u", {"sha256": "c" * 64, "size_bytes": 9}, "multipart")
    yield store
    store.database.dispose()


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if getattr(request, "param", "directory") == "directory":
        return str(tmp_path / "backups")
    return unused(request.getfixturevalue("s3"))


@pytest.fixture
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Store]]:
    """Makes an empty system; on PostgreSQL what was there is gone."""
    made: list[Store] = []
    on_servers = getattr(request, "param", EMBEDDED) == SERVERS
    servers = [request.getfixturevalue(name) for name in ("postgresql", "s3") if on_servers]

    def make() -> Store:
        directory = tmp_path / "other"
        directory.mkdir()
        engines = Engines.embedded(directory)
        if on_servers:
            engines = Engines(SERVERS, emptied(servers[0]), unused(servers[1]))
        made.append(opened(engines, directory))
        return made[-1]

    yield make
    for store in made:
        store.database.dispose()


def answers(store: Store) -> dict[str, Any]:
    """What users of the service are told."""
    indexes = open_indexes("auto", store.directory / "index", store.database)
    with store.database.session(read_only=True) as session:
        first = session.scalars(select(Task).where(Task.name == "cats 0")).one()
        near = search.neighbours(
            session,
            indexes,
            "acme",
            first.embedding_seq,
            metric="cosine",
            k=3,
            search_candidates=128,
        )
        version = estimators.latest(session, "acme", published=True, with_evidence=True)
        return {
            "neighbours": [(each.task.id, each.distance) for each in near.neighbours],
            "evidence": estimators.evidence_of(version).digest,
            "keys": [key.digest for key in keys.list_keys(session)],
        }


@to_both
@into_both
def test_what_is_restored_answers_as_what_was_backed_up(
    store: Store, empty: Callable[[], Store], place: str
) -> None:
    told, rows = answers(store), store.rows()
    archives = set(store.blobs.stored())
    backup_id, manifest = store.back_up(Backups(place, create=True))
    assert (manifest.missing, manifest.tasks) == ([], 6)
    other = empty()
    restored_id, restored = Backups(place).find(None)
    assert restored_id == backup_id
    restore(Backups(place), restored, other.system)
    assert set(other.blobs.stored()) == archives
    assert answers(other) == told
    again = other.rows()
    assert [len(again[name]) for name in rows] == [len(rows[name]) for name in rows]
    assert {name: again[name] for name in rows if name not in ("jobs", "tasks")} == {
        name: rows[name] for name in rows if name not in ("jobs", "tasks")
    }
    with other.database.session() as session:
        assert session.scalars(select(Upload)).all() == []
        # What was at work waits, as if never begun.
        unfinished = session.scalars(select(Job).where(Job.state == "queued")).all()
        assert [(job.task.name, job.task.status, job.attempts) for job in unfinished] == [
            ("queued", "queued", 0),
            ("running", "queued", 0),
        ]
        begun = {job_id for job_id, _ in jobs.unfinished(session)}
        assert begun == {unfinished[1].id}
        assert begun.union(session.scalars(select(Outbox.job_id))) == {j.id for j in unfinished}
        highest = session.scalar(select(func.max(Task.seq)))
        task, job = accept_task(session)
        assert task.seq == highest + 1  # no number is given out twice
        assert jobs.start_job(session, job.id, max_attempts=3)


def test_a_backup_and_its_restore_tell_how_much_of_how_much_is_done(
    store: Store, empty: Callable[[], Store], tmp_path: Path
) -> None:
    place, made, restored = Backups(str(tmp_path / "backups"), create=True), Heard(), Heard()
    _, manifest = backups.make(store.database, store.blobs, MIGRATIONS, place, made)
    rows, blobs = sum(map(len, store.rows().values())), len(manifest.blobs)
    assert list(made) == ["copying rows", "copying blobs", "storing the rows"]
    assert made["copying rows"][-1] == (rows, rows)
    assert made["copying blobs"] == [(done, blobs) for done in range(blobs + 1)]
    restore(place, manifest, empty().system, restored)
    assert list(restored) == ["reading parts", "copying blobs", "writing rows"]
    assert restored["reading parts"] == [(done, blobs + 1) for done in range(blobs + 2)]
    assert restored["copying blobs"] == made["copying blobs"]
    assert restored["writing rows"][-1] == (rows, rows)


@into_both
def test_json_that_is_null_and_no_json_stay_two_things(
    store: Store, empty: Callable[[], Store], tmp_path: Path
) -> None:
    def kinds(database: Database) -> list[tuple[Any, ...]]:
        with database.session(read_only=True) as session:
            told = text("SELECT problem IS NULL, CAST(problem AS TEXT) FROM tasks ORDER BY seq")
            return [tuple(row) for row in session.execute(told)]

    with store.database.session() as session:
        session.execute(text("UPDATE tasks SET problem = 'null' WHERE seq = 1"))
        session.execute(text("""UPDATE tasks SET problem = '{"a":  "\\u00e9 ü"}' WHERE seq = 2"""))
        session.execute(text("UPDATE tasks SET problem = NULL WHERE seq = 3"))
    before = kinds(store.database)
    assert before[:3] == [(0, "null"), (0, '{"a":  "\\u00e9 ü"}'), (1, None)]
    place = Backups(str(tmp_path / "backups"), create=True)
    _, manifest = store.back_up(place)
    other = empty()
    restore(place, manifest, other.system)
    assert kinds(other.database) == before


@embedded
@to_both
def test_what_is_there_already_is_not_brought_again(store: Store, place: str) -> None:
    there = Backups(place, create=True)
    _, first = store.back_up(there)
    brought = set(there.parts.stored())
    store.add_task(20)
    _, second = store.back_up(there)
    new = set(there.parts.stored()) - brought
    assert len(new) == 2
    assert new == {second.database, *set(second.blobs) - set(first.blobs)}
    assert [manifest for _, manifest in there.listed()] == [second, first]


@embedded
@to_both
def test_of_several_backups_the_newest_are_kept_with_all_their_parts(
    store: Store, place: str
) -> None:
    there = Backups(place, create=True)
    gone = store.add_task(20)
    store.back_up(there)
    store.delete(gone)
    made = [store.back_up(there) for _ in range(2)]
    assert there.keep(2) == 1
    assert there.listed() == made[::-1]
    assert set(there.parts.stored()) == made[0][1].parts | made[1][1].parts
    for _, manifest in made:
        verify(there, manifest)
    assert there.keep(2) == 0


class Meddling:
    """Blobs while somebody else is at work: calls `meddle` before the first is opened."""

    def __init__(self, blobs: BlobStore, meddle: Callable[[], None]) -> None:
        self._blobs, self._meddle = blobs, meddle
        self._done = False

    def open(self, sha256: str) -> BinaryIO:
        if not self._done:
            self._done = True
            self._meddle()
        return self._blobs.open(sha256)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._blobs, name)


@embedded
def test_a_task_that_is_deleted_meanwhile_is_not_in_the_backup_and_nothing_is_missing(
    store: Store, empty: Callable[[], Store], tmp_path: Path
) -> None:
    doomed = [store.add_task(seed, name="doomed") for seed in range(30, 34)]

    def meddle() -> None:
        for task in doomed:
            store.delete(task)
        store.add_task(40, name="late")

    watched = Store(store.database, Meddling(store.blobs, meddle), store.directory)
    place = Backups(str(tmp_path / "backups"), create=True)
    _, manifest = watched.back_up(place)
    assert manifest.missing == []
    other = empty()
    restore(place, manifest, other.system)
    with other.database.session(read_only=True) as session:
        names = set(session.scalars(select(Task.name)))
        needed = backups.archives.needed(session)
    assert "late" in names
    assert "doomed" not in names
    assert needed == set(other.blobs.stored())


@embedded
def test_of_a_run_that_goes_on_meanwhile_the_newest_checkpoint_is_backed_up(
    store: Store, tmp_path: Path
) -> None:
    run = store.add_run(store.add_task(30), "running", {finetunes.CHECKPOINT: b"epoch 1"})

    def meddle() -> None:
        store.keep(run, {finetunes.CHECKPOINT: b"epoch 2"})

    watched = Store(store.database, Meddling(store.blobs, meddle), store.directory)
    place = Backups(str(tmp_path / "backups"), create=True)
    _, manifest = watched.back_up(place)
    newest = hashlib.sha256(b"epoch 2").hexdigest()
    assert manifest.missing == []
    assert newest in manifest.blobs


@embedded
def test_a_backup_that_is_outrun_says_so_and_leaves_no_manifest(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Backups(str(tmp_path / "backups"), create=True)
    doomed = [store.add_task(50, name="doomed")]
    copy = backups._copy_blobs

    def outrun(*asked: Any) -> set[str]:
        store.delete(doomed[-1])
        doomed.append(store.add_task(50 + len(doomed), name="doomed"))
        return copy(*asked)

    monkeypatch.setattr(backups, "_copy_blobs", outrun)
    with pytest.raises(Unavailable, match="deleted before it could be"):
        store.back_up(place)
    assert place.listed() == []


@embedded
def test_backups_while_tasks_come_and_go_are_each_whole(store: Store, tmp_path: Path) -> None:
    place = Backups(str(tmp_path / "backups"), create=True)
    over = threading.Event()

    def come_and_go() -> None:
        seed = 100
        while not over.is_set():
            store.delete(store.add_task(seed))
            store.add_task(seed + 1)
            seed += 2

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        made = [store.back_up(place) for _ in range(3)]
    finally:
        over.set()
        thread.join()
    for number, (_, manifest) in enumerate(made):
        directory = tmp_path / f"other-{number}"
        directory.mkdir()
        other = opened(Engines.embedded(directory), directory)
        restore(place, manifest, other.system)
        with other.database.session(read_only=True) as session:
            needed = backups.archives.needed(session)
        other.database.dispose()
        assert manifest.missing == []
        assert needed == set(other.blobs.stored())


def test_what_was_lost_before_is_named_and_the_rest_is_backed_up(
    store: Store, engines: Engines, tmp_path: Path
) -> None:
    lost, damaged, trained = (store.add_task(seed) for seed in (60, 61, 62))
    store.blobs.delete(lost.archives[0].sha256)
    engines.overwrite_blob(damaged.archives[0].sha256, b"other bytes")
    store.add_run(trained, "succeeded", {"model": b"other weights"})
    model = hashlib.sha256(b"other weights").hexdigest()
    store.blobs.delete(model)
    place = Backups(str(tmp_path / "backups"), create=True)
    _, manifest = store.back_up(place)
    assert set(manifest.missing) == {
        lost.archives[0].sha256,
        damaged.archives[0].sha256,
        model,
    }
    verify(place, manifest)
    assert set(place.parts.stored()) == manifest.parts


@embedded
@pytest.mark.parametrize("harm", ["lost", "changed"])
def test_a_backup_with_a_damaged_part_changes_nothing(
    store: Store, empty: Callable[[], Store], tmp_path: Path, harm: str
) -> None:
    place = Backups(str(tmp_path / "backups"), create=True)
    _, manifest = store.back_up(place)
    part = tmp_path / "backups" / "parts" / manifest.blobs[0][:2] / manifest.blobs[0]
    if harm == "lost":
        part.unlink()
    else:
        part.write_bytes(part.read_bytes()[::-1])
    other = empty()
    before = other.rows()
    with pytest.raises(Conflict, match=manifest.blobs[0]):
        restore(place, manifest, other.system)
    assert (other.rows(), other.blobs.stored()) == (before, [])


@embedded
def test_a_system_with_something_in_it_is_left_as_it_is(
    store: Store, empty: Callable[[], Store], tmp_path: Path
) -> None:
    place = Backups(str(tmp_path / "backups"), create=True)
    _, manifest = store.back_up(place)
    other = empty()
    with other.database.session() as session:
        keys.create_key(session, "acme", "mine")
    before = other.rows()
    with pytest.raises(Conflict, match="1 of api_keys") as refusal:
        restore(place, manifest, other.system)
    assert "TASK2VEC_DATABASE_URL" in refusal.value.remedy
    assert (other.rows(), other.blobs.stored()) == (before, [])


@embedded
@into_both
def test_a_system_that_was_started_once_counts_as_empty_and_its_library_gives_way(
    store: Store, empty: Callable[[], Store], tmp_path: Path
) -> None:
    place = Backups(str(tmp_path / "backups"), create=True)
    told = answers(store)
    _, manifest = store.back_up(place)
    other = empty()
    with other.database.session() as session:
        for seed in range(20, 25):
            ready_task(session, make_embedding(seed), tenant=PUBLIC, name=f"shipped {seed}")
    indexes = open_indexes("auto", other.directory / "index", other.database)
    with other.database.session(read_only=True) as session:  # a search makes an index of these
        first = session.scalars(select(Embedding.seq)).first()
        search.neighbours(
            session, indexes, "acme", first, metric="cosine", k=3, search_candidates=128
        )
    restore(place, manifest, other.system)
    assert answers(other) == told


@embedded
@into_both
def test_a_restore_that_fails_at_its_end_leaves_an_empty_system_and_can_be_done_again(
    store: Store, empty: Callable[[], Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Backups(str(tmp_path / "backups"), create=True)
    rows = store.rows()
    _, manifest = store.back_up(place)
    other = empty()
    with monkeypatch.context() as patch:
        patch.setattr(jobs, "release_all", lambda session: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            restore(place, manifest, other.system)
    assert sum(map(len, other.rows().values())) == 0
    restore(place, manifest, other.system)
    assert other.rows()["embedding_arrays"] == rows["embedding_arrays"]


@embedded
def test_a_torn_backup_is_none(store: Store, tmp_path: Path) -> None:
    place = Backups(str(tmp_path / "backups"), create=True)
    with pytest.raises(NotFound, match="no backup"):
        place.find(None)
    backup_id, _ = store.back_up(place)
    with pytest.raises(NotFound, match="no backup 'abc'"):
        place.find("abc")
    assert place.find(backup_id)[0] == backup_id
    [manifest] = (tmp_path / "backups" / "backups").glob("??/*")
    manifest.write_bytes(manifest.read_bytes()[:-10])
    with pytest.raises(Conflict, match="other bytes"):
        place.listed()


@embedded
def test_a_manifest_that_leads_out_of_its_folder_is_not_read(store: Store, tmp_path: Path) -> None:
    place = Backups(str(tmp_path / "backups"), create=True)
    _, manifest = store.back_up(place)
    written = json.loads(manifest.model_dump_json())
    written["blobs"] = ["../../x"]
    place._manifests.put(io.BytesIO(json.dumps(written).encode()))
    with pytest.raises(Conflict, match="not known here"):
        place.listed()


@pytest.mark.parametrize("place", ["http://host/path", "s3://", "gs://bucket"])
def test_a_place_that_is_none_is_refused(place: str) -> None:
    with pytest.raises(InvalidRequest):
        Backups(place, create=True)


def _of_revision(revision: str, directory: Path) -> tuple[Path, list[str]]:
    """A store's file as a service of that version left it: two tasks, an embedding of theirs."""
    path = directory / f"{revision}.sqlite"
    database = Database(f"sqlite:///{path}")
    database.migrate(MIGRATIONS, revision)
    engine = create_engine(f"sqlite:///{path}")
    arrays = {name: make_embedding(1).vector.tobytes() for name in ("vector", "draw_error")}
    arrays |= {"sampling_error": arrays["vector"], "domain": arrays["vector"]}
    with engine.begin() as connection:
        found = MetaData()
        found.reflect(connection)

        def put(name: str, /, **values: Any) -> None:
            table: Table = found.tables[name]
            given = {**values, "created_at": now(), "updated_at": now(), "discriminants": b""}
            given = {key: value for key, value in given.items() if key in table.c}
            connection.execute(insert(table).values(given))

        more = arrays if "vector" in found.tables["embeddings"].c else {}
        put(
            "embeddings", seq=1, tenant="acme", recipe_digest="r", space_id="space", complexity=1.0,
            noise_floor=0.01, epsilon=1e-9, provenance={}, **more,
        )  # fmt: skip
        if not more:
            put("embedding_arrays", embedding_seq=1, **arrays)
        for seq, name in enumerate(("old", "older"), 1):
            put(
                "tasks", seq=seq, id=name, tenant="acme", name=name, label_kind="auto",
                label_kind_asked="auto", probe="probe", status="ready", version=1, embedding_seq=1,
            )  # fmt: skip
            put("archives", task_seq=seq, position=0, sha256="b" * 64, size_bytes=3)
        put("task_tags", task_seq=1, tag="fur")
    engine.dispose()
    database.dispose()
    return path, ["old", "older"]


@pytest.mark.parametrize("revision", revisions(MIGRATIONS)[::-1])
def test_a_backup_of_every_earlier_version_is_restored(
    empty: Callable[[], Store], tmp_path: Path, revision: str
) -> None:
    path, names = _of_revision(revision, tmp_path)
    place = Backups(str(tmp_path / "backups"), create=True)
    blob: Blob = place.parts.put(io.BytesIO(b"old"))
    with path.open("rb") as file:
        snapshot = place.parts.put(file)
    manifest = Manifest(
        made_at=now(), app_version="0.0.1", schema_revision=revision, tasks=2,
        database=snapshot.sha256, blobs=[blob.sha256], missing=[],
    )  # fmt: skip
    place.add(manifest)
    other = empty()
    restore(place, place.find(None)[1], other.system)
    with other.database.session() as session:
        found = session.scalars(select(Task).order_by(Task.seq)).all()
        assert [task.id for task in found] == names
        assert [tag.tag for tag in found[0].tags] == ["fur"]
        assert found[1].embedding.seq == 1
        accept_task(session)
    assert other.blobs.stored() == [blob.sha256]


@embedded
def test_a_backup_of_a_later_version_is_refused(
    store: Store, empty: Callable[[], Store], tmp_path: Path
) -> None:
    place = Backups(str(tmp_path / "backups"), create=True)
    _, manifest = store.back_up(place)
    later = manifest.model_copy(update={"schema_revision": "9999", "app_version": "9.0"})
    with pytest.raises(Conflict, match=r"Version 9\.0"):
        restore(place, later, empty().system)
