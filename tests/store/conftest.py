from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.settings import shared_directory
from app.store.blobs import BlobStore, open_blobs
from app.store.indexes import open_indexes
from app.store.search import Indexes
from app.store.session import Database
from tests.engines import Engines

MIGRATIONS = shared_directory("migrations")


@pytest.fixture
def url(engines: Engines) -> str:
    return engines.database_url


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    database = Database(url)
    database.migrate(MIGRATIONS)
    yield database
    database.dispose()


@pytest.fixture
def blobs(engines: Engines) -> BlobStore:
    return open_blobs(engines.blob_url)


@pytest.fixture
def indexes(database: Database, tmp_path: Path) -> Indexes:
    return open_indexes("auto", tmp_path / "index", database)
