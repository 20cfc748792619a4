"""One compute thread a process: the suite runs as many processes as there are cores.

Tests that ask for `engines` run on those in this process. Tests of the store, those that are marked
`both_engines`, and all where --engines says so, run on servers too.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")

from tests.engines import (
    EMBEDDED,
    SERVERS,
    Engines,
    emptied,
    postgresql_server,
    s3_server,
    unused,
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--engines",
        choices=[EMBEDDED, SERVERS, "both"],
        help="run all tests of the service on these: SQLite, FAISS and the disk (embedded), "
        "PostgreSQL, pgvector and S3 (servers), or both one after the other",
    )


def engine_names(config: pytest.Config, *, both: bool) -> list[str]:
    asked = config.getoption("--engines")
    if asked == "both" or (asked is None and both):
        return [EMBEDDED, SERVERS]
    return [asked or EMBEDDED]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "engines" in metafunc.fixturenames:
        of_store = metafunc.definition.path.parent.name == "store"
        both = of_store or metafunc.definition.get_closest_marker("both_engines") is not None
        names = engine_names(metafunc.config, both=both)
        metafunc.parametrize("engines", names, indirect=True)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """TEST_PG_URL, or a server of this process's own."""
    if given := os.environ.get("TEST_PG_URL"):
        yield given
        return
    with postgresql_server() as url:
        yield url


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """TEST_S3_URL, or a bucket of this process's own; the environment says how it is reached."""
    if given := os.environ.get("TEST_S3_URL"):
        yield given
        return
    with s3_server() as (url, environment), pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield url


@pytest.fixture
def engines(request: pytest.FixtureRequest, tmp_path: Path) -> Engines:
    if request.param == EMBEDDED:
        return Engines.embedded(tmp_path)
    postgresql: str = request.getfixturevalue("postgresql")
    s3: str = request.getfixturevalue("s3")
    return Engines(SERVERS, emptied(postgresql), unused(s3))
