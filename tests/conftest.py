"""One compute thread a process: the suite runs as many processes as there are cores.

Tests that ask for `engines` run on those in this process, tests of the store on servers too. Marked
ones run on those that the mark names and on no others; all run where --engines says.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")

from tests.engines import (
    EMBEDDED,
    SERVERS,
    Engines,
    database_of,
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


def asked_for(config: pytest.Config, engines: Iterable[str]) -> list[str]:
    """Those of the engines that --engines leaves."""
    asked = config.getoption("--engines")
    return [name for name in engines if asked in (None, "both", name)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "engines" not in metafunc.fixturenames:
        return
    marker = metafunc.definition.get_closest_marker("engines")
    engines: tuple[str, ...] = marker.args if marker else (EMBEDDED, SERVERS)
    usually_both = marker or metafunc.definition.path.parent.name == "store"
    if metafunc.config.getoption("--engines") is None and not usually_both:
        engines = (EMBEDDED,)
    metafunc.parametrize("engines", asked_for(metafunc.config, engines), indirect=True)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """On the server of TEST_PG_URL, or on one of this process's own."""
    if given := os.environ.get("TEST_PG_URL"):
        yield database_of(given, os.environ.get("PYTEST_XDIST_WORKER", "alone"))
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
