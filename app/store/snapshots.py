"""The rows of a database in a SQLite file, whichever engine it runs on, and back into either.

The file has the schema of the database that it was taken of. One of an earlier version is brought
up by the same migrations as any other SQLite file before its rows are laid into a database.

Neither search indexes, which are made of embeddings, nor workers, which are processes, nor uploads,
whose parts are in no backup, are part of it.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import (
    JSON,
    Column,
    ColumnElement,
    MetaData,
    Table,
    Text,
    cast,
    delete,
    func,
    insert,
    select,
)
from sqlalchemy.orm import Session
from sqlalchemy.types import UserDefinedType

from app.store import points
from app.store.progress import OnCount
from app.store.session import Database
from app.store.tables import PUBLIC, Base, SearchIndex, Upload, Worker

_AT_ONCE = 64  # rows: of embeddings some 30 MB


class _JsonText(UserDefinedType[str]):
    """JSON as the text it is kept as, in which `null` and no value are two things."""

    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        return "JSON"

    def column_expression(self, colexpr: ColumnElement[str]) -> ColumnElement[str]:
        return cast(colexpr, Text)


def _as_kept(table: Table) -> Table:
    columns = (
        Column(
            column.name,
            _JsonText() if isinstance(column.type, JSON) else column.type,
            primary_key=column.primary_key,
        )
        for column in table.columns
    )
    return Table(table.name, MetaData(), *columns)


_PASSING = (Upload.__tablename__, Worker.__tablename__)
_TABLES = [_as_kept(table) for table in Base.metadata.sorted_tables if table.name not in _PASSING]
"""Those that others refer to come first."""


def take(
    session: Session, path: Path, migrations_dir: Path, on_rows: OnCount = lambda *_: None
) -> None:
    """All rows that the session sees, as one state of the database, into a new file."""
    snapshot = Database(f"sqlite:///{path}")
    try:
        snapshot.migrate(migrations_dir)
        with snapshot.session() as taken:
            _carry(session, taken, on_rows)
    finally:
        snapshot.dispose()  # which also brings the log of writes into the file


def lay(
    path: Path, session: Session, migrations_dir: Path, on_rows: OnCount = lambda *_: None
) -> None:
    """The rows of a snapshot, brought up to our schema, instead of those that are there."""
    snapshot = Database(f"sqlite:///{path}")
    try:
        snapshot.migrate(migrations_dir)
        if session.get_bind().dialect.name == "postgresql":
            for index in session.scalars(select(SearchIndex)).all():
                points.drop(session, index)
        for table in reversed(_TABLES):
            session.execute(delete(table))
        with snapshot.session(read_only=True) as taken:
            _carry(taken, session, on_rows)
        _count_on(session)
    finally:
        snapshot.dispose()


def tenants_rows(session: Session) -> dict[str, int]:
    """How many rows each table has that somebody owns, where it has any."""
    owned = [table for table in _TABLES if "tenant" in table.c]
    counted = {
        table.name: session.scalar(
            select(func.count()).select_from(table).where(table.c.tenant != PUBLIC)
        )
        for table in owned
    }
    return {name: count for name, count in counted.items() if count}


def _carry(source: Session, target: Session, on_rows: OnCount) -> None:
    counts = (source.scalar(select(func.count()).select_from(table)) for table in _TABLES)
    done, total = 0, sum(count or 0 for count in counts)
    for table in _TABLES:
        rows = source.execute(select(table), execution_options={"yield_per": _AT_ONCE})
        for some in rows.mappings().partitions():
            target.execute(insert(table), [dict(row) for row in some])
            done += len(some)
            on_rows(done, total)


def _count_on(session: Session) -> None:
    """PostgreSQL does not see that numbers were given out, SQLite does."""
    if session.get_bind().dialect.name != "postgresql":
        return
    for table in _TABLES:
        if "seq" in table.c:
            last = select(func.max(table.c.seq)).scalar_subquery()
            sequence = func.pg_get_serial_sequence(table.name, "seq")
            session.execute(
                select(func.setval(sequence, func.coalesce(last, 1), last.is_not(None)))
            )
