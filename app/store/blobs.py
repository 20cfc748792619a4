"""Uploaded archives by the SHA-256 of their bytes, on local disk."""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO

import obstore
from obstore.store import LocalStore

from app.errors import NotFound

_CHUNK_BYTES = 2**20
_INCOMING = "incoming/"


@dataclass(frozen=True, slots=True)
class Blob:
    sha256: str
    size_bytes: int


class BlobStore:
    """A blob is visible whole or not at all: bytes arrive under `incoming/` and are named last."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory.absolute()
        self._store = LocalStore(self._directory, mkdir=True)

    def put(self, stream: BinaryIO) -> Blob:
        """Stores what `stream` holds; the same bytes again are the same blob."""
        digest = hashlib.sha256()
        size_bytes = 0

        def chunks() -> Iterator[bytes]:
            nonlocal size_bytes
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
                size_bytes += len(chunk)
                yield chunk

        incoming = f"{_INCOMING}{uuid.uuid4().hex}"
        obstore.put(self._store, incoming, chunks(), chunk_size=_CHUNK_BYTES, max_concurrency=2)
        sha256 = digest.hexdigest()
        _fsync(self._directory / incoming)
        obstore.rename(self._store, incoming, _path(sha256))
        _fsync((self._directory / _path(sha256)).parent)
        # The folder may be new. Whether it was cannot be asked: another process may have made it
        # a moment ago, and not be so far as to have synced it.
        _fsync(self._directory)
        return Blob(sha256, size_bytes)

    def open(self, sha256: str) -> BinaryIO:
        """The blob's bytes, seekable; NotFound where there is none."""
        try:
            return (self._directory / _path(sha256)).open("rb")
        except FileNotFoundError as error:
            raise NotFound(
                "blob-missing",
                f"The bytes with SHA-256 {sha256} are not in the store.",
                "Upload the archive again.",
            ) from error

    def exists(self, sha256: str) -> bool:
        return (self._directory / _path(sha256)).is_file()

    def delete(self, sha256: str) -> None:
        """Removes the blob if it is there."""
        (self._directory / _path(sha256)).unlink(missing_ok=True)

    def stored(self, older_than_seconds: float) -> list[str]:
        """The digests of all blobs that were last put longer ago than that."""
        before = datetime.now(UTC) - timedelta(seconds=older_than_seconds)
        return [
            entry["path"].rpartition("/")[2]
            for page in obstore.list(self._store)
            for entry in page
            if entry["last_modified"] < before and not entry["path"].startswith(_INCOMING)
        ]

    def sweep(self, older_than_seconds: float) -> int:
        """Removes what torn uploads left behind; how many files that were."""
        # Not through obstore: it hides the parts of an unfinished upload.
        before = time.time() - older_than_seconds
        torn = [
            path
            for path in (self._directory / _INCOMING).glob("*")
            if path.stat().st_mtime < before
        ]
        for path in torn:
            path.unlink(missing_ok=True)
        return len(torn)


def _path(sha256: str) -> str:
    return f"{sha256[:2]}/{sha256}"


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
