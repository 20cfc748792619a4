from __future__ import annotations

import multiprocessing
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, MetaData, Table, create_engine, func, inspect, select, text
from sqlalchemy.exc import DBAPIError

from app.store import embeddings, jobs
from app.store.session import Database
from app.store.tables import (
    Base,
    Embedding,
    EmbeddingArrays,
    Job,
    Outbox,
    PostgresqlBase,
    Task,
    now,
)
from tests.engines import SERVERS, Engines, never_migrated
from tests.store.conftest import MIGRATIONS
from tests.store.samples import accept_task

SPAWN = multiprocessing.get_context("spawn")
PROCESSES = 2
UNITS = 25
READERS = 40


@pytest.fixture
def url(engines: Engines) -> str:
    url = engines.database_url
    return never_migrated(url) if engines.name == SERVERS else url


def every_table(engine: Engine) -> list[MetaData]:
    if engine.dialect.name == "sqlite":
        return [Base.metadata]
    return [Base.metadata, PostgresqlBase.metadata]


def test_migrations_give_exactly_the_tables(database: Database, url: str) -> None:
    engine = create_engine(url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, every_table(engine)) == []
    engine.dispose()


def test_migrations_go_down_to_nothing_and_up_again(database: Database, url: str) -> None:
    database.migrate(MIGRATIONS, "base")
    engine = create_engine(url)
    assert inspect(engine).get_table_names() == ["alembic_version"]
    database.migrate(MIGRATIONS)
    names = {name for metadata in every_table(engine) for name in metadata.tables}
    assert set(inspect(engine).get_table_names()) == {*names, "alembic_version"}
    engine.dispose()


def test_a_store_of_the_version_before_keeps_its_rows_through_the_next_migration(
    url: str,
) -> None:
    database = Database(url)
    database.migrate(MIGRATIONS, "0001")
    engine = create_engine(url)
    columns = (
        "tenant, name, label_kind, label_kind_asked, probe, status, version, created_at, updated_at"
    )
    values = "'acme', 'cats', 'auto', 'auto', 'probe', 'ready', 1, '2026-11-01', '2026-11-01'"
    with engine.begin() as connection:
        for name in "ab":
            connection.execute(
                text(f"INSERT INTO tasks (id, {columns}) VALUES ('{name}', {values})")
            )
        connection.execute(text("INSERT INTO task_tags (task_seq, tag) VALUES (1, 'fur')"))
        connection.execute(text("DELETE FROM tasks WHERE id = 'b'"))
    engine.dispose()
    database.migrate(MIGRATIONS)
    with database.session() as session:
        (task,) = session.scalars(select(Task)).all()
        assert (task.id, [tag.tag for tag in task.tags], task.next_embedding_seq) == (
            "a",
            ["fur"],
            None,
        )
        accept_task(session)
        assert session.scalar(select(func.max(Task.seq))) == 3  # no seq is given out twice
    database.dispose()


def test_the_arrays_of_embeddings_move_with_their_table_and_back(url: str) -> None:
    database, engine = Database(url), create_engine(url)
    database.migrate(MIGRATIONS, "0005")
    arrays = ("vector", "domain", "discriminants", "draw_error", "sampling_error")
    old = Table("embeddings", MetaData(), autoload_with=engine)
    for number in (1, 2):
        with engine.begin() as connection:
            connection.execute(
                old.insert().values(
                    tenant="acme",
                    recipe_digest=str(number),
                    space_id="space",
                    complexity=number,
                    noise_floor=0,
                    epsilon=1e-9,
                    provenance={},
                    created_at=now(),
                    **{name: f"{name} {number}".encode() for name in arrays},
                )
            )
    database.migrate(MIGRATIONS)
    with database.session() as session:
        first, second = session.scalars(select(Embedding).order_by(Embedding.seq)).all()
        for name in arrays:
            assert getattr(second.arrays, name) == f"{name} 2".encode()
        embeddings.remove(session, Embedding.seq == first.seq)
    with database.session() as session:
        assert session.scalars(select(EmbeddingArrays.embedding_seq)).all() == [second.seq]
    since = [path for path in (MIGRATIONS / "versions").glob("0*.py") if path.name >= "0006"]
    database.migrate(MIGRATIONS, f"-{len(since)}")
    with engine.connect() as connection:
        [row] = connection.execute(select(*(old.c[name] for name in arrays))).all()
        assert [bytes(data) for data in row] == [f"{name} 2".encode() for name in arrays]
    engine.dispose()
    database.dispose()


def test_keys_of_before_scopes_may_write_and_those_that_may_less_do_not_survive_the_way_back(
    url: str,
) -> None:
    database, engine = Database(url), create_engine(url)
    database.migrate(MIGRATIONS, "0018")
    old = Table("api_keys", MetaData(), autoload_with=engine)
    with engine.begin() as connection:
        for name in ("laptop", "desk", "visitor"):
            row = {"id": name, "tenant": "acme", "name": name, "digest": name}
            connection.execute(old.insert().values(**row, created_at=now()))
    database.migrate(MIGRATIONS, "0019")
    new = Table("api_keys", MetaData(), autoload_with=engine)
    with engine.begin() as connection:
        found = connection.execute(select(new.c.scope, new.c.prefix, new.c.expires_at)).all()
        assert set(found) == {("write", "", None)}
        connection.execute(new.update().where(new.c.id == "visitor").values(scope="read"))
        connection.execute(new.update().where(new.c.id == "desk").values(expires_at=now()))
    database.migrate(MIGRATIONS, "-1")
    with engine.connect() as connection:
        assert connection.execute(select(old.c.id)).all() == [("laptop",)]
    engine.dispose()
    database.dispose()


def test_a_raised_error_leaves_nothing_of_the_unit(database: Database) -> None:
    with pytest.raises(RuntimeError), database.session() as session:
        accept_task(session)
        raise RuntimeError
    with database.session(read_only=True) as session:
        for table in (Task, Job, Outbox):
            assert session.scalar(select(func.count()).select_from(table)) == 0


def test_a_read_only_unit_refuses_to_write(database: Database) -> None:
    with (
        pytest.raises(DBAPIError, match=r"read-?only"),
        database.session(read_only=True) as session,
    ):
        accept_task(session)
    with database.session() as session:  # the next user of the connection may
        accept_task(session)


def test_a_read_only_unit_sees_one_state_while_another_writes(database: Database) -> None:
    count = select(func.count()).select_from(Task)
    with database.session(read_only=True) as reader:
        assert reader.scalar(count) == 0
        with database.session() as writer:
            accept_task(writer)
        assert reader.scalar(count) == 0


def test_sqlite_keeps_foreign_keys_and_a_write_ahead_log(tmp_path: Path) -> None:
    path = tmp_path / "new" / "store.sqlite"
    database = Database(f"sqlite:///{path}")
    database.migrate(MIGRATIONS)
    with database.session() as session:
        assert session.connection().exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
    database.dispose()
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_readers_of_all_threads_of_the_api_hold_a_unit_of_work_at_once(
    database: Database,
) -> None:
    together = threading.Barrier(READERS)

    def read(_: int) -> int:
        with database.session(read_only=True) as session:
            count = session.scalar(select(func.count()).select_from(Task))
            together.wait(10)
            return count or 0

    with ThreadPoolExecutor(READERS) as threads:
        assert list(threads.map(read, range(READERS))) == [0] * READERS


def _migrate_then_count_up(url: str, barrier: multiprocessing.synchronize.Barrier) -> None:
    database = Database(url)
    barrier.wait()
    database.migrate(MIGRATIONS)
    for _ in range(UNITS):
        with database.session() as session:  # reads, then writes what it read
            job = session.scalars(select(Job).with_for_update()).first()
            if job is None:
                _, job = accept_task(session)
            job.done += 1
    database.dispose()


def test_two_processes_that_start_and_write_together_lose_nothing(url: str) -> None:
    barrier = SPAWN.Barrier(PROCESSES)
    processes = [
        SPAWN.Process(target=_migrate_then_count_up, args=(url, barrier)) for _ in range(PROCESSES)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * PROCESSES
    database = Database(url)
    with database.session(read_only=True) as session:
        found, _ = jobs.list_jobs(session, "acme", limit=10)
    database.dispose()
    assert sum(job.done for job in found) == PROCESSES * UNITS
