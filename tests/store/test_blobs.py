from __future__ import annotations

import errno
import hashlib
import io
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import obstore
import pytest
from obstore.exceptions import GenericError

from app.errors import NotFound, Unavailable
from app.store import archives, tasks
from app.store.blobs import NO_SPACE, Blob, BlobStore, LocalBlobs
from app.store.session import Database
from tests.store.samples import accept_task

DATA = os.urandom(3 * 2**20 + 7)


@pytest.fixture
def on_disk(tmp_path: Path) -> LocalBlobs:
    return LocalBlobs(tmp_path / "blobs")


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


def test_the_same_bytes_are_kept_once(blobs: BlobStore) -> None:
    assert blobs.put(io.BytesIO(DATA)) == blobs.put(io.BytesIO(DATA))
    assert len(blobs.stored()) == 1


def test_what_cannot_be_read_twice_is_stored_too(blobs: BlobStore) -> None:
    class Once(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def seek(self, *_: int) -> int:
            raise io.UnsupportedOperation

    blob = blobs.put(Once(DATA))
    with blobs.open(blob.sha256) as stream:
        assert stream.read() == DATA


def test_a_stream_is_stored_from_where_it_stands_and_left_open(blobs: BlobStore) -> None:
    stream = io.BytesIO(DATA)
    stream.seek(7)
    assert blobs.put(stream) == Blob(hashlib.sha256(DATA[7:]).hexdigest(), len(DATA) - 7)
    assert not stream.closed


def test_no_bytes_are_a_blob_too(blobs: BlobStore) -> None:
    blob = blobs.put(io.BytesIO(b""))
    assert (blob.size_bytes, blobs.size_bytes(blob.sha256)) == (0, 0)


def test_a_deleted_blob_is_gone_and_may_be_deleted_again(blobs: BlobStore) -> None:
    blob = blobs.put(io.BytesIO(b"bytes"))
    for _ in range(2):
        blobs.delete(blob.sha256)
    assert blobs.size_bytes(blob.sha256) is None
    with pytest.raises(NotFound):
        blobs.open(blob.sha256)


def test_an_upload_that_breaks_off_leaves_nothing(blobs: BlobStore) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 2**21:
                raise ConnectionResetError
            return super().read(size)

    with pytest.raises(ConnectionResetError):
        blobs.put(Broken(DATA))
    assert blobs.stored() == []
    assert blobs.sweep(older_than_seconds=-1) == 0


KILLED_MID_PUT = """
import io, pathlib, sys, time
from app.store.blobs import LocalBlobs
class Slow(io.RawIOBase):
    def read(self, size=-1):
        print("reading", flush=True)
        time.sleep(0.05)
        return b"x" * size
LocalBlobs(pathlib.Path(sys.argv[1])).put(Slow())
"""


def test_a_full_disk_is_told_as_one(on_disk: LocalBlobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """In obstore's words on a disk that was full; it has no class of its own for that."""

    def full(*_: object, **__: object) -> None:
        raise GenericError(
            "Generic LocalFileSystem error: Unable to copy data to file: No space left on device "
            "(os error 28)"
        )

    monkeypatch.setattr(obstore, "put", full)
    with pytest.raises(Unavailable, match="disk is full") as told:
        on_disk.put(io.BytesIO(DATA))
    assert told.value.code == NO_SPACE


def test_what_a_killed_upload_leaves_is_never_a_blob_and_is_swept(
    on_disk: LocalBlobs, tmp_path: Path
) -> None:
    kept = on_disk.put(io.BytesIO(DATA))
    with subprocess.Popen(
        [sys.executable, "-c", KILLED_MID_PUT, str(tmp_path / "blobs")], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        for _ in range(8):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    torn = [path for path in files(tmp_path) if path.name.partition("#")[0] != kept.sha256]
    assert torn
    assert on_disk.stored(older_than_seconds=-1) == [kept.sha256]
    assert on_disk.sweep(older_than_seconds=3600) == 0
    assert on_disk.sweep(older_than_seconds=-1) == len(torn)
    assert [path.name for path in files(tmp_path)] == [kept.sha256]


FULL_MID_PUT = """
import io, os, resource, signal, sys
from pathlib import Path
from app.store.blobs import LocalBlobs
blobs = LocalBlobs(Path(sys.argv[1]))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
try:
    blobs.put(io.BytesIO(os.urandom(3 * 2**20)))
except OSError as error:
    print(error.errno)
"""


def test_what_the_system_refuses_is_told_by_its_number(on_disk: LocalBlobs, tmp_path: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-c", FULL_MID_PUT, str(tmp_path / "blobs")],
        capture_output=True,
        text=True,
    )
    assert told.stdout.split() == [str(errno.EFBIG)], told.stderr
    assert files(tmp_path) == []


def test_a_new_blob_and_the_way_to_it_are_on_disk_before_it_is_told_of(
    on_disk: LocalBlobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle).st_ino))
    blob = on_disk.put(io.BytesIO(b"bytes"))
    root = tmp_path / "blobs"
    folder = root / blob.sha256[:2]
    assert synced == [path.stat().st_ino for path in (folder / blob.sha256, folder, root)]


def test_blobs_that_no_task_is_made_of_are_orphans_once_they_are_old(
    blobs: BlobStore, database: Database
) -> None:
    needed, orphan = (blobs.put(io.BytesIO(data)) for data in (b"1", b"2"))
    with database.session() as session:
        accept_task(session, archive=needed)
    with database.session(read_only=True) as session:
        assert archives.orphans(session, blobs, older_than_seconds=60) == []
        assert archives.orphans(session, blobs, older_than_seconds=-60) == [orphan.sha256]


def test_blobs_are_as_old_as_they_were_last_put(on_disk: LocalBlobs, tmp_path: Path) -> None:
    old, again = (on_disk.put(io.BytesIO(data)) for data in (b"1", b"2"))
    for path in files(tmp_path):
        os.utime(path, (time.time() - 100,) * 2)
    on_disk.put(io.BytesIO(b"2"))
    assert on_disk.stored(older_than_seconds=50) == [old.sha256]
    assert set(on_disk.stored()) == {old.sha256, again.sha256}


def test_only_blobs_that_no_task_is_made_of_are_deleted(
    blobs: BlobStore, database: Database
) -> None:
    needed, orphan = (blobs.put(io.BytesIO(data)) for data in (b"1", b"2"))
    with database.session() as session:
        task, _ = accept_task(session, archive=needed)
    digests = [needed.sha256, orphan.sha256]
    with database.session() as session:
        assert archives.delete_unneeded(session, blobs, digests) == 1
    assert [blobs.size_bytes(digest) for digest in digests] == [1, None]
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
    assert blobs.size_bytes(blob.sha256) == 5


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
