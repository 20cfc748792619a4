from __future__ import annotations

import hashlib
import io
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from app.errors import NotFound, Unavailable
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


def test_a_new_blob_and_the_way_to_it_are_on_disk_before_it_is_told_of(
    blobs: BlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle).st_ino))
    blob = blobs.put(io.BytesIO(b"bytes"))
    root = tmp_path / "blobs"
    folder = root / blob.sha256[:2]
    assert synced == [path.stat().st_ino for path in (folder / blob.sha256, folder, root)]


def test_old_blobs_that_no_task_is_made_of_are_orphans(
    blobs: BlobStore, database: Database, tmp_path: Path
) -> None:
    needed, orphan, young = (blobs.put(io.BytesIO(data)) for data in (b"1", b"2", b"3"))
    for path in files(tmp_path):
        if path.name != young.sha256:
            os.utime(path, (time.time() - 100,) * 2)
    with database.session() as session:
        accept_task(session, archive=needed)
    with database.session(read_only=True) as session:
        assert archives.orphans(session, blobs, older_than_seconds=50) == [orphan.sha256]


def test_only_blobs_that_no_task_is_made_of_are_deleted(
    blobs: BlobStore, database: Database
) -> None:
    needed, orphan = (blobs.put(io.BytesIO(data)) for data in (b"1", b"2"))
    with database.session() as session:
        task, _ = accept_task(session, archive=needed)
    digests = [needed.sha256, orphan.sha256]
    with database.session() as session:
        assert archives.delete_unneeded(session, blobs, digests) == 1
    assert [blobs.exists(digest) for digest in digests] == [True, False]
    with database.session() as session:
        task = tasks.get_own_task(session, "acme", task.id)
        assert tasks.delete_task(session, task) == [needed.sha256]


def test_a_blob_whose_task_is_being_committed_is_not_deleted(
    blobs: BlobStore, database: Database
) -> None:
    blob = blobs.put(io.BytesIO(b"bytes"))
    deleted: list[int] = []

    def delete() -> None:
        with database.session() as session:
            deleted.append(archives.delete_unneeded(session, blobs, [blob.sha256]))

    deleting = threading.Thread(target=delete)
    with database.session() as session:
        accept_task(session, archive=blob)
        archives.require_kept(session, blobs, blob.sha256)
        deleting.start()
        deleting.join(0.3)  # time to go wrong in
    deleting.join(60)
    assert deleted == [0]
    assert blobs.exists(blob.sha256)


def test_a_task_of_bytes_that_are_gone_is_not_committed(
    blobs: BlobStore, database: Database
) -> None:
    blob = blobs.put(io.BytesIO(b"bytes"))
    with database.session() as session:
        archives.delete_unneeded(session, blobs, [blob.sha256])
    with pytest.raises(Unavailable, match="deleted"), database.session() as session:
        archives.require_kept(session, blobs, blob.sha256)


def test_a_blob_is_needed_while_any_tenant_has_it(database: Database) -> None:
    with database.session() as session:
        ours, _ = accept_task(session)
        accept_task(session, tenant="rival")
        assert tasks.delete_task(session, ours) == []
