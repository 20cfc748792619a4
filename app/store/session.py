"""The database and its one unit of work.

Functions of this package take the session and never commit: only the edge that opened it does.
"""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event, func, make_url, select
from sqlalchemy.orm import Session

SQLITE_BUSY_TIMEOUT_SECONDS = 10
CONNECT_SECONDS = 10
POOLED_CONNECTIONS = 40  # as many as the API has threads: no unit of work waits for another's end
SHIPPED = "what is shipped"
"""Held by whoever brings cards and library in line: two services may start at the same time."""
_PARAMETERS = 500
_MIGRATION_LOCK = 0x7A5C2EC  # any number, the same for all our processes


ItemT = TypeVar("ItemT")


def portions(items: Sequence[ItemT]) -> Iterator[Sequence[ItemT]]:
    """A statement takes only so many parameters."""
    return (items[start : start + _PARAMETERS] for start in range(0, len(items), _PARAMETERS))


class Database:
    """One per process and database URL; SQLite files and PostgreSQL behave alike behind it."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._writer = _create_engine(url)
        self._reader = _read_only(self._writer)

    @contextmanager
    def session(self, *, read_only: bool = False) -> Iterator[Session]:
        """One unit of work: committed at its end, rolled back if anything is raised inside.

        A writer on SQLite takes the write lock at once: it waits for its turn instead of failing
        when a read would become a write. A read-only unit never waits, sees one state of the
        database throughout, and refuses to write.
        """
        bind = self._reader if read_only else self._writer
        with Session(bind, expire_on_commit=False) as session, session.begin():
            yield session

    def migrate(self, migrations_dir: Path, revision: str = "head") -> None:
        """Brings the schema to a revision; several processes may try at the same time.

        Down to `base`, or by as many revisions as `-1` and the like say.
        """
        # Altering a table on SQLite copies it and drops the old one: enforced foreign keys would
        # cascade that drop into other tables' rows. They cannot be switched inside a transaction.
        engine = _create_engine(self._url, foreign_keys=False)
        try:
            with engine.begin() as connection:
                if connection.dialect.name == "postgresql":
                    connection.execute(select(func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
                config = Config()
                config.set_main_option("script_location", str(migrations_dir).replace("%", "%%"))
                config.attributes["connection"] = connection
                down = revision == "base" or revision.startswith("-")
                move = command.downgrade if down else command.upgrade
                move(config, revision)
        finally:
            engine.dispose()

    def revision(self) -> str | None:
        """Of the schema; None where it was never migrated."""
        with self._reader.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()

    @contextmanager
    def alone(self, what: str) -> Iterator[bool]:
        """Whether no other process is at that: if so, none will be until this is over.

        Without a unit of work: what is done takes its own. Of SQLite nobody asks, whose file has
        one worker.
        """
        if self._writer.dialect.name != "postgresql":
            yield True
            return
        with self.session() as session:
            yield bool(session.scalar(select(func.pg_try_advisory_xact_lock(_key(what)))))

    def cut_log(self) -> None:
        """Brings SQLite's log of writes into the file and empties it: what was deleted stood in it.

        Where somebody reads meanwhile, as far as that goes.
        """
        if self._writer.dialect.name == "sqlite":
            connection = self._writer.raw_connection()
            try:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            finally:
                connection.close()

    def dispose(self) -> None:
        self._writer.dispose()


def revisions(migrations_dir: Path) -> list[str]:
    """Of the schema, the newest first."""
    scripts = ScriptDirectory(str(migrations_dir))
    return [script.revision for script in scripts.walk_revisions()]


def hold(session: Session, what: str) -> None:
    """Until the unit of work ends, nobody else who holds the same is at work.

    On SQLite a writing unit has the whole database to itself.
    """
    if session.get_bind().dialect.name == "postgresql":
        session.execute(select(func.pg_advisory_xact_lock(_key(what))))


def _key(what: str) -> int:
    return int.from_bytes(hashlib.sha256(what.encode()).digest()[:8], signed=True)


def _read_only(engine: Engine) -> Engine:
    if engine.dialect.name == "sqlite":
        return engine.execution_options(task2vec_read_only=True)
    return engine.execution_options(postgresql_readonly=True, isolation_level="REPEATABLE READ")


def _create_engine(url: str, *, foreign_keys: bool = True) -> Engine:
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        # Half of them are given back to the server, which has some for everybody, after a rush.
        half = POOLED_CONNECTIONS // 2
        # libpq would wait for a machine that is gone as long as TCP does.
        patience = {"connect_timeout": parsed.query.get("connect_timeout", CONNECT_SECONDS)}
        return create_engine(
            parsed,
            connect_args=patience,
            hide_parameters=True,
            pool_pre_ping=True,
            pool_size=half,
            max_overflow=half,
        )
    if parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(
        parsed, hide_parameters=True, pool_size=POOLED_CONNECTIONS, max_overflow=-1
    )

    @event.listens_for(engine, "connect")
    def _on_connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver's own idea of BEGIN leaves reads out
        connection.execute(f"PRAGMA busy_timeout = {SQLITE_BUSY_TIMEOUT_SECONDS * 1000}")
        _write_ahead(connection)
        connection.execute("PRAGMA secure_delete = ON")  # what is deleted is not to be read again
        connection.execute(f"PRAGMA foreign_keys = {int(foreign_keys)}")

    @event.listens_for(engine, "begin")
    def _on_begin(connection: Connection) -> None:
        read_only = connection.get_execution_options().get("task2vec_read_only", False)
        connection.exec_driver_sql(f"PRAGMA query_only = {int(read_only)}")
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Switches a new file to WAL: the one statement that does not wait for a lock by itself."""
    give_up_at = time.monotonic() + SQLITE_BUSY_TIMEOUT_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > give_up_at:
                raise
            time.sleep(0.01)
        else:
            return
