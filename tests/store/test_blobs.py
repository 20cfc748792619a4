from __future__ import annotations

import hashlib
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app.errors import NotFound
from app.store import archives, tasks
from app.store.blobs import Blob, BlobStore
from app.store.session import Database
from tests.store.samples import accept_task

DATA = os.urandom(3 * 2**20 + 7)


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs")


def files(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()]


def test_what_was_put_is_found_by_its_digest(blobs: BlobStore) -> None:
    blob = blobs.put(io.BytesIO(DATA))
    assert blob == Blob(hashlib.sha256(DATA).hexdigest(), len(DATA))
    with blobs.open(blob.sha256) as stream:
        stream.seek(-7, os.SEEK_END)
        assert stream.read() == DATA[-7:]
        stream.seek(0)
        assert stream.read() == DATA


def test_the_same_bytes_are_kept_once(blobs: BlobStore, tmp_path: Path) -> None:
    assert blobs.put(io.BytesIO(DATA)) == blobs.put(io.BytesIO(DATA))
    assert len(files(tmp_path)) == 1


def test_no_bytes_are_a_blob_too(blobs: BlobStore) -> None:
    blob = blobs.put(io.BytesIO(b""))
    assert (blob.size_bytes, blobs.exists(blob.sha256)) == (0, True)


def test_a_deleted_blob_is_gone_and_may_be_deleted_again(blobs: BlobStore) -> None:
    blob = blobs.put(io.BytesIO(b"bytes"))
    for _ in range(2):
        blobs.delete(blob.sha256)
    assert not blobs.exists(blob.sha256)
    with pytest.raises(NotFound):
        blobs.open(blob.sha256)


def test_an_upload_that_breaks_off_leaves_nothing(blobs: BlobStore, tmp_path: Path) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 2**21:
                raise ConnectionResetError
            return super().read(size)

    with pytest.raises(ConnectionResetError):
        blobs.put(Broken(DATA))
    assert files(tmp_path) == []


KILLED_MID_PUT = """
import io, pathlib, sys, time
from app.store.blobs import BlobStore
class Slow(io.RawIOBase):
    def read(self, size=-1):
        print("reading", flush=True)
        time.sleep(0.05)
        return b"x" * size
BlobStore(pathlib.Path(sys.argv[1])).put(Slow())
"""


def test_what_a_killed_upload_leaves_is_never_a_blob_and_is_swept(
    blobs: BlobStore, tmp_path: Path
) -> None:
    kept = blobs.put(io.BytesIO(DATA))
    with subprocess.Popen(
        [sys.executable, "-c", KILLED_MID_PUT, str(tmp_path / "blobs")], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        for _ in range(8):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    torn = [path for path in files(tmp_path) if path.name.partition("#")[0] != kept.sha256]
    assert torn
    assert blobs.stored(older_than_seconds=-1) == [kept.sha256]
    assert blobs.sweep(older_than_seconds=3600) == 0
    assert blobs.sweep(older_than_seconds=-1) == len(torn)
    assert [path.name for path in files(tmp_path)] == [kept.sha256]


def test_reclaiming_spares_what_a_task_needs_and_what_is_young(
    blobs: BlobStore, database: Database, tmp_path: Path
) -> None:
    needed, orphan, young = (blobs.put(io.BytesIO(data)) for data in (b"1", b"2", b"3"))
    for path in files(tmp_path):
        if path.name != young.sha256:
            os.utime(path, (time.time() - 100,) * 2)
    with database.session() as session:
        task, _ = accept_task(session, archive=needed)
    with database.session(read_only=True) as session:
        assert archives.reclaim(session, blobs, older_than_seconds=50) == 1
    assert [blobs.exists(blob.sha256) for blob in (needed, orphan, young)] == [True, False, True]
    with database.session() as session:
        task = tasks.get_own_task(session, "acme", task.id)
        assert tasks.delete_task(session, task) == [needed.sha256]


def test_a_blob_is_needed_while_any_tenant_has_it(database: Database) -> None:
    with database.session() as session:
        ours, _ = accept_task(session)
        accept_task(session, tenant="rival")
        assert tasks.delete_task(session, ours) == []
