"""A store made by any earlier version keeps its rows through every migration since."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime
from typing import Any

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Connection,
    DateTime,
    Engine,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    create_engine,
    func,
    select,
    text,
)

from app.store.session import Database
from tests.engines import SERVERS, Engines, never_migrated
from tests.store.conftest import MIGRATIONS

Row = dict[str, Any]


@pytest.fixture
def url(engines: Engines) -> str:
    url = engines.database_url
    return never_migrated(url) if engines.name == SERVERS else url


def test_a_row_of_every_table_at_every_revision_is_there_at_the_last(url: str) -> None:
    database, engine = Database(url), create_engine(url)
    wrote: dict[str, list[Row]] = defaultdict(list)
    for number, revision in enumerate(_revisions(), 1):
        database.migrate(MIGRATIONS, revision)
        _require_rows(engine, wrote)
        with engine.begin() as connection:
            for table in _tables(engine):
                wrote[table.name].append(_write(connection, table, number, wrote))
    _require_rows(engine, wrote)
    assert min(map(len, wrote.values())) >= 1
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            assert connection.execute(text("PRAGMA foreign_key_check")).all() == []
    engine.dispose()
    database.dispose()


def _revisions() -> list[str]:
    script = ScriptDirectory(str(MIGRATIONS))
    return [each.revision for each in reversed(list(script.walk_revisions()))]


def _tables(engine: Engine) -> list[Table]:
    """Those that others refer to come first."""
    metadata = MetaData()
    metadata.reflect(engine)
    return [table for table in metadata.sorted_tables if table.name != "alembic_version"]


def _write(connection: Connection, table: Table, number: int, wrote: dict[str, list[Row]]) -> Row:
    """A row with something in every column, what it refers to being of the same revision."""
    row: Row = {}
    for column in table.columns:
        if column.foreign_keys:
            (key,) = column.foreign_keys
            row[column.name] = wrote[key.column.table.name][-1][key.column.name]
        elif not (column.name == "seq" and column.primary_key):  # the database gives it
            row[column.name] = _value(column, number)
    key_column = next(iter(table.primary_key.columns))
    written = connection.execute(table.insert().values(row).returning(key_column)).scalar_one()
    return row | {key_column.name: written}


def _value(column: Column[Any], number: int) -> Any:
    kind = column.type
    if isinstance(kind, JSON):
        return {"number": number}
    if isinstance(kind, LargeBinary):
        return f"{column.name} {number}".encode()
    if isinstance(kind, DateTime):
        return datetime(2026, 1, number, tzinfo=UTC)
    if isinstance(kind, Boolean):
        return bool(number % 2)
    if isinstance(kind, Float | Integer):
        return number
    return f"{column.name} {number}"[: getattr(kind, "length", None)]


def _require_rows(engine: Engine, wrote: dict[str, list[Row]]) -> None:
    """All that was written, in the columns that there still are."""
    with engine.connect() as connection:
        for table in _tables(engine):
            rows = wrote[table.name]
            found = connection.execute(select(func.count()).select_from(table)).scalar_one()
            assert found >= len(rows), table.name
            for row in rows:
                same = [
                    table.c[name] == value
                    for name, value in row.items()
                    if name in table.c and not isinstance(table.c[name].type, JSON | DateTime)
                ]
                count = select(func.count()).select_from(table).where(*same)
                assert connection.scalar(count) == 1, (table.name, row)
