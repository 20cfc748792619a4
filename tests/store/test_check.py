from __future__ import annotations

import io
from pathlib import Path

import pytest
from sqlalchemy import select, text, update

from app.embedding.parts import Population
from app.settings import Settings
from app.store import finetunes, jobs, points, tasks
from app.store.blobs import Blob, BlobStore
from app.store.check import Report, check
from app.store.finetunes import Asked
from app.store.indexes import FaissIndexes, open_indexes
from app.store.session import Database
from app.store.tables import Embedding, EmbeddingArrays, SearchIndex, Task
from tests.cost.cards import CANDIDATE, FULL, GPU
from tests.engines import Engines
from tests.store.samples import Heard, make_embedding, ready_task
from tests.store.test_indexes import POPULATION


class Kept:
    """A store with two tasks whose archives are there, and both kinds of index."""

    def __init__(
        self, database: Database, blobs: BlobStore, engines: Engines, directory: Path
    ) -> None:
        self.database = database
        self.engines = engines
        self.blobs = blobs
        self.settings = Settings(**engines.settings, data_dir=directory)
        self.index_dir = self.settings.index_dir
        self.archives = [self.blobs.put(io.BytesIO(b"pictures" * n)) for n in (3, 4)]
        with database.session() as session:
            self.tasks = [
                ready_task(session, make_embedding(seed), archive=archive)
                for seed, archive in enumerate(self.archives)
            ]
        self.search()

    def search(self) -> None:
        indexes = FaissIndexes(self.index_dir)
        with self.database.session(read_only=True) as session:
            indexes.by_parts(session, "space", POPULATION)
            indexes.by_logs(session, "space")

    def check(self, *, deep: bool = False, repair: bool = False) -> Report:
        with self.database.session(read_only=not repair) as session:
            return check(session, self.blobs, self.settings, deep=deep, repair=repair)

    def damage(self, blob: Blob, data: bytes) -> None:
        self.engines.overwrite_blob(blob.sha256, data)


@pytest.fixture
def kept(
    database: Database,
    blobs: BlobStore,
    engines: Engines,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Kept:
    def population(*_: object) -> Population:
        return POPULATION

    monkeypatch.setattr("app.store.check.reference.population", population)
    return Kept(database, blobs, engines, tmp_path)


@pytest.mark.parametrize("deep", [False, True])
def test_a_store_that_fits_together_has_no_findings(kept: Kept, deep: bool) -> None:
    report = kept.check(deep=deep)
    assert report.findings == []
    looked_at = {"archives": 2, "embeddings": 2, "index rows": 4, "tasks": 2, "jobs": 2}
    assert +report.checked == looked_at


def test_a_check_tells_how_much_of_how_much_was_looked_at(kept: Kept) -> None:
    heard = Heard()
    with kept.database.session(read_only=True) as session:
        check(session, kept.blobs, kept.settings, deep=True, repair=False, on_progress=heard)
    assert heard["looking at archives"] == [(0, 2), (1, 2), (2, 2)]
    assert heard["looking at index rows"] == [(2, 2), (2, 2)]  # of two indexes, by the hundred
    assert heard["looking at rows"] == [(0, 0)]


@pytest.mark.engines("servers")
def test_a_check_tells_how_many_rows_of_an_index_in_the_database_it_read(kept: Kept) -> None:
    indexes, heard = open_indexes("pgvector", kept.index_dir, kept.database), Heard()
    with kept.database.session(read_only=True) as session:
        indexes.followed(session, "space", POPULATION)
    with kept.database.session(read_only=True) as session:
        check(session, kept.blobs, kept.settings, deep=True, repair=False, on_progress=heard)
    assert heard["looking at index rows"] == [(2, 2)] * 3


@pytest.mark.engines("servers")
@pytest.mark.parametrize("deep", [False, True])
def test_an_index_in_the_database_with_other_numbers_is_found(kept: Kept, deep: bool) -> None:
    indexes = open_indexes("pgvector", kept.index_dir, kept.database)
    with kept.database.session(read_only=True) as session:
        for population in (None, POPULATION):
            indexes.followed(session, "space", population)
    report = kept.check(deep=deep)
    assert (report.findings, report.checked["index rows"]) == ([], 8)
    with kept.database.session() as session:
        logs, parts = session.scalars(select(SearchIndex).order_by(SearchIndex.seq))
        of_logs, of_parts = (points.points_of(session, index) for index in (logs, parts))
        first = kept.tasks[0].embedding_seq
        session.execute(of_logs.delete().where(of_logs.c.embedding_seq == first))
        codes = session.scalar(select(of_parts.c.codes).where(of_parts.c.embedding_seq == first))
        changed = bytes([codes[0] ^ 0x40]) + codes[1:]
        session.execute(
            of_parts.update().where(of_parts.c.embedding_seq == first).values(codes=changed)
        )
    lacking, wrong = kept.check(deep=deep).findings
    assert "lacks 1 embeddings and holds 0" in lacking.detail
    assert "lacks 0 embeddings and holds 1" in wrong.detail
    assert [finding.mended for finding in kept.check(deep=deep, repair=True).findings] == [True] * 2
    assert kept.check(deep=deep).findings == []


def test_a_lost_archive_is_found(kept: Kept) -> None:
    kept.blobs.delete(kept.archives[0].sha256)
    [finding] = kept.check().findings
    assert finding.kind == "archive"
    assert kept.archives[0].sha256 in finding.detail
    assert kept.tasks[0].id in finding.remedy


def test_changed_bytes_are_found_by_their_number_or_when_all_are_read(kept: Kept) -> None:
    kept.damage(kept.archives[0], b"short")
    kept.damage(kept.archives[1], b"picturez" * 4)
    assert len(kept.check().findings) == 1
    assert len(kept.check(deep=True).findings) == 2


def test_a_lost_or_damaged_model_of_a_run_is_found_and_a_checkpoint_is_not_missed(
    kept: Kept,
) -> None:
    model, card, checkpoint = (
        kept.blobs.put(io.BytesIO(name)) for name in (b"model", b"card", b"checkpoint")
    )
    with kept.database.session() as session:
        ended, going_on = (
            finetunes.create(
                session, task, CANDIDATE, FULL, GPU, Asked(), warnings=[], forecast=None
            )
            for task in session.scalars(select(Task).order_by(Task.seq))
        )
        token = jobs.start_job(session, ended.job.id, max_attempts=3).token
        finetunes.finish(
            session, ended.job.id, token, files={"model": model, "card": card}, curve=[],
            result={}, run=None, forecast=None,
        )  # fmt: skip
        finetunes.keep(session, going_on, {"checkpoint": checkpoint})
    report = kept.check(deep=True)
    assert (report.findings, report.checked["models"]) == ([], 1)
    kept.blobs.delete(model.sha256)
    kept.blobs.delete(checkpoint.sha256)
    kept.damage(card, b"dark")
    assert [finding.kind for finding in kept.check().findings] == ["model"]
    damaged, lost = sorted(kept.check(deep=True).findings, key=lambda found: found.detail)
    assert damaged.detail.startswith("card ")
    assert lost.detail.startswith("model ")
    assert ended.id in lost.remedy


def test_arrays_of_other_lengths_are_found(kept: Kept) -> None:
    with kept.database.session() as session:
        session.execute(
            update(EmbeddingArrays)
            .where(EmbeddingArrays.embedding_seq == kept.tasks[0].embedding_seq)
            .values(domain=b"\0" * 8)
        )
    assert "embedding" in {finding.kind for finding in kept.check().findings}


@pytest.mark.parametrize("deep", [False, True])
def test_an_index_with_other_numbers_is_found_and_mended(kept: Kept, deep: bool) -> None:
    for path in kept.index_dir.rglob("codes.column"):
        data = bytearray(path.read_bytes())
        data[5] ^= 0x40
        path.write_bytes(data)
    [finding] = kept.check(deep=deep).findings
    assert (finding.kind, finding.mended) == ("index", False)
    [finding] = kept.check(deep=deep, repair=True).findings
    assert finding.mended
    kept.search()
    assert kept.check(deep=True).findings == []


def test_an_index_of_another_database_is_found(kept: Kept) -> None:
    with kept.database.session() as session:
        session.execute(update(Embedding).values(recipe_digest=Embedding.recipe_digest + "!"))
    found = kept.check().findings
    assert [finding.kind for finding in found] == ["index", "index"]
    assert "another database" in found[0].detail


def test_an_index_that_lags_behind_fits(kept: Kept) -> None:
    with kept.database.session() as session:
        ready_task(session, make_embedding(5), archive=kept.archives[0])
        tasks.delete_task(session, tasks.get_own_task(session, "acme", kept.tasks[1].id))
    kept.blobs.delete(kept.archives[1].sha256)
    assert kept.check(deep=True).findings == []


def test_indexes_that_nothing_needs_any_more_are_found(kept: Kept) -> None:
    (kept.index_dir / "space" / "parts-of-old").mkdir()
    (kept.index_dir / "left" / "logs").mkdir(parents=True)
    details = sorted(finding.detail for finding in kept.check(repair=True).findings)
    assert len(details) == 2
    assert kept.check().findings == []


@pytest.mark.engines("embedded")  # PostgreSQL looks after its own pages
def test_a_damaged_database_file_is_found(kept: Kept, url: str) -> None:
    root = text("SELECT rootpage FROM sqlite_schema WHERE name = 'tasks'")
    with kept.database.session(read_only=True) as session:
        page = session.scalar(root)
    kept.database.dispose()  # which also brings the log of writes into the file
    with Path(url.removeprefix("sqlite:///")).open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xff" * 4096)
    report = kept.check()
    assert {finding.kind for finding in report.findings} == {"database"}
    assert report.checked == {}
