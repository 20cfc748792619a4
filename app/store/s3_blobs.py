"""Blobs in a bucket.

An object is there once its upload is over and not before, so nothing has to be renamed; its name
is known only once all bytes were read, so they are read twice, from a file. What a killed upload
leaves are parts that no listing shows: `sweep` asks for them.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import BinaryIO, cast

from boto3.s3.transfer import TransferConfig

from app.store.blobs import ANY_AGE, CHUNK_BYTES, INCOMING, Blob, key_of
from app.store.s3_bucket import Bucket
from app.store.s3_incoming import S3Incoming

# Part by part: as many uploads as there are threads must not fill the memory.
_PARTS = TransferConfig(
    multipart_threshold=16 * 2**20, multipart_chunksize=16 * 2**20, use_threads=False
)
_DIGEST = re.compile(r"[0-9a-f]{64}")


class S3Blobs:
    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self.incoming = S3Incoming(bucket)

    def put(self, stream: BinaryIO) -> Blob:
        with ExitStack() as files:
            file = stream
            if not stream.seekable():
                file = cast("BinaryIO", files.enter_context(tempfile.TemporaryFile()))
            start = file.tell()
            digest, size_bytes = hashlib.sha256(), 0
            while chunk := stream.read(CHUNK_BYTES):
                digest.update(chunk)
                size_bytes += len(chunk)
                if file is not stream:
                    file.write(chunk)
            sha256 = digest.hexdigest()
            if self.size_bytes(sha256) != size_bytes:
                file.seek(start)
                place = self._bucket.at(key_of(sha256))
                with self._bucket.told():
                    self._bucket.client.upload_fileobj(_LeftOpen(file), **place, Config=_PARTS)
        return Blob(sha256, size_bytes)

    def open(self, sha256: str) -> BinaryIO:
        """A file of its own: whoever reads an archive wants all of it, in an order of its own, and
        a connection that breaks off must not look like a damaged image."""
        with self._bucket.told(sha256):
            return self._bucket.spooled(key_of(sha256))

    def size_bytes(self, sha256: str) -> int | None:
        return self._bucket.size_bytes(key_of(sha256))

    def delete(self, sha256: str) -> None:
        self._bucket.delete(key_of(sha256))

    def stored(self, older_than_seconds: float = ANY_AGE) -> list[str]:
        before = datetime.now(UTC) - timedelta(seconds=older_than_seconds)
        names = [
            entry["Key"].rpartition("/")[2]
            for entry in self._bucket.listed("list_objects_v2", "", "Contents")
            if entry["LastModified"] < before
        ]
        return [name for name in names if _DIGEST.fullmatch(name)]

    def sweep(self, older_than_seconds: float) -> int:
        before = datetime.now(UTC) - timedelta(seconds=older_than_seconds)
        torn = [
            (self._bucket.without_prefix(upload["Key"]), upload["UploadId"])
            for upload in self._bucket.listed("list_multipart_uploads", "", "Uploads")
            if upload["Initiated"] < before
        ]
        for key, upload in torn:
            self._bucket.abort(key, upload)
        left = [
            self._bucket.without_prefix(entry["Key"])
            for entry in self._bucket.listed("list_objects_v2", INCOMING, "Contents")
            if entry["LastModified"] < before
        ]
        for key in left:
            self._bucket.delete(key)
        return len(torn) + len(left)

    def answers(self) -> bool:
        return self._bucket.answers()


class _LeftOpen:
    """A file as the client sees it, which closes what it has sent."""

    def __init__(self, file: BinaryIO) -> None:
        self.read, self.seek, self.tell, self.seekable = (
            file.read,
            file.seek,
            file.tell,
            file.seekable,
        )

    def close(self) -> None:
        """Whose file it is closes it."""
