"""Uploaded archives by the SHA-256 of their bytes: on local disk here, on S3 in `s3_blobs`."""

from __future__ import annotations

import hashlib
import os
import re
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO, Protocol
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore

from app.errors import NO_SPACE, NotFound, Unavailable, is_disk_full

UNAVAILABLE = "blobs-unavailable"
"""Code of the Unavailable that any method of a store on other machines may raise."""
ANY_AGE = -86_400.0
"""Seconds, also by a clock that is a little ahead of ours."""
UPLOAD_SECONDS = 86_400.0
"""No upload lasts longer: a blob that nobody needs by then is nobody's."""
CHUNK_BYTES = 2**20
INCOMING = "incoming/"
_SYSTEM_ERROR = re.compile(r"\(os error (\d+)\)")


@dataclass(frozen=True, slots=True)
class Blob:
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Address:
    """Where a client puts a part, and the headers that it must send along."""

    url: str
    headers: dict[str, str]


class Incoming(Protocol):
    """Archives that clients put into the store themselves, part by part, each under a name of ours.

    `upload` is what the store calls it. Parts are told by their SHA-256, in order from number 1.
    """

    def begin(self, name: str) -> str:
        """The `upload`."""

    def address(self, name: str, upload: str, number: int, sha256: str) -> Address:
        """Of a part with these bytes and no others, for a day."""

    def held(self, name: str, upload: str) -> dict[int, str] | None:
        """The parts that are there, each with the store's mark of it; None once the upload is
        over."""

    def join(self, name: str, upload: str, held: dict[int, str], parts: Sequence[str]) -> None:
        """Makes one of all parts."""

    def size_bytes(self, name: str) -> int | None:
        """Of what was joined; None where nothing was."""

    def open(self, name: str) -> BinaryIO:
        """What was joined; NotFound where nothing was, or it is gone."""

    def accept(self, name: str, blob: Blob) -> None:
        """What was joined becomes that blob; NotFound as `open`."""

    def discard(self, name: str, upload: str) -> None:
        """Parts and what was joined of them."""


class BlobStore(Protocol):
    """A blob is visible whole or not at all, and the same bytes again are the same blob."""

    @property
    def incoming(self) -> Incoming | None:
        """None where clients cannot reach the store."""

    def put(self, stream: BinaryIO) -> Blob:
        """Stores what `stream` holds."""

    def open(self, sha256: str) -> BinaryIO:
        """The blob's bytes, seekable; NotFound where there is none."""

    def size_bytes(self, sha256: str) -> int | None:
        """None where there is no such blob."""

    def delete(self, sha256: str) -> None:
        """Removes the blob if it is there."""

    def stored(self, older_than_seconds: float = ANY_AGE) -> list[str]:
        """The digests of all blobs that were last put longer ago than that."""

    def sweep(self, older_than_seconds: float) -> int:
        """Removes what torn uploads left behind; how many there were."""

    def answers(self) -> bool:
        """Whether it can be reached now, told within seconds."""


def open_blobs(url: str, public_url: str = "") -> BlobStore:
    """Those under `file:///directory`, or `s3://bucket/prefix` that clients see as `public_url`."""
    parts = urlsplit(url)
    if parts.scheme == "file":
        return LocalBlobs(Path(unquote(parts.path)))
    try:
        from app.store.s3_blobs import S3Blobs
        from app.store.s3_bucket import Bucket
    except ModuleNotFoundError as error:
        raise Unavailable(
            "extra-missing",
            f"Blobs on S3 need a package that is not installed ({error.name}).",
            "Run: pip install 'task2vec-service[s3]'",
        ) from error
    return S3Blobs(Bucket(parts.netloc, parts.path.strip("/"), public_url))


class LocalBlobs:
    """Bytes arrive under `incoming/` and are named last."""

    incoming = None

    def __init__(self, directory: Path) -> None:
        self._directory = directory.absolute()
        self._store = LocalStore(self._directory, mkdir=True)

    def put(self, stream: BinaryIO) -> Blob:
        digest = hashlib.sha256()
        size_bytes = 0

        def chunks() -> Iterator[bytes]:
            nonlocal size_bytes
            while chunk := stream.read(CHUNK_BYTES):
                digest.update(chunk)
                size_bytes += len(chunk)
                yield chunk

        incoming = f"{INCOMING}{uuid.uuid4().hex}"
        try:
            obstore.put(self._store, incoming, chunks(), chunk_size=CHUNK_BYTES, max_concurrency=2)
        except BaseError as error:
            raise _of_system(error, size_bytes) from error
        sha256 = digest.hexdigest()
        _fsync(self._directory / incoming)
        obstore.rename(self._store, incoming, key_of(sha256))
        _fsync((self._directory / key_of(sha256)).parent)
        # The folder may be new. Whether it was cannot be asked: another process may have made it
        # a moment ago, and not be so far as to have synced it.
        _fsync(self._directory)
        return Blob(sha256, size_bytes)

    def open(self, sha256: str) -> BinaryIO:
        try:
            return (self._directory / key_of(sha256)).open("rb")
        except FileNotFoundError as error:
            raise missing(sha256) from error

    def size_bytes(self, sha256: str) -> int | None:
        try:
            return (self._directory / key_of(sha256)).stat().st_size
        except FileNotFoundError:
            return None

    def delete(self, sha256: str) -> None:
        (self._directory / key_of(sha256)).unlink(missing_ok=True)

    def stored(self, older_than_seconds: float = ANY_AGE) -> list[str]:
        before = datetime.now(UTC) - timedelta(seconds=older_than_seconds)
        return [
            entry["path"].rpartition("/")[2]
            for page in obstore.list(self._store)
            for entry in page
            if entry["last_modified"] < before and not entry["path"].startswith(INCOMING)
        ]

    def sweep(self, older_than_seconds: float) -> int:
        # Not through obstore: it hides the parts of an unfinished upload.
        before = time.time() - older_than_seconds
        torn = [
            path for path in (self._directory / INCOMING).glob("*") if path.stat().st_mtime < before
        ]
        for path in torn:
            path.unlink(missing_ok=True)
        return len(torn)

    def answers(self) -> bool:
        return self._directory.is_dir()


def key_of(sha256: str) -> str:
    return f"{sha256[:2]}/{sha256}"


def missing(sha256: str) -> NotFound:
    return NotFound(
        "blob-missing",
        f"The bytes with SHA-256 {sha256} are not in the store.",
        "Upload the archive again.",
    )


def digest_of(stream: BinaryIO) -> str:
    """SHA-256, as blobs are called by it, of what is left to read."""
    digest = hashlib.sha256()
    while chunk := stream.read(CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()


def _of_system(error: BaseError, size_bytes: int) -> Exception:
    """As the system told it, where it did: the store tells by words alone."""
    told = _SYSTEM_ERROR.search(str(error))
    if told is None:
        return error
    system = OSError(int(told[1]), os.strerror(int(told[1])))
    if not is_disk_full(system):
        return system
    return Unavailable(
        NO_SPACE,
        f"The disk is full: {size_bytes} bytes and more were to be stored.",
        "Send the request again once the operator has made room.",
    )


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
