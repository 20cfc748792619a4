"""Blobs in a bucket of S3, or of a store that speaks its language.

Endpoint, region, keys and how a bucket is addressed come from where the tools of AWS look for them:
`AWS_*` of the environment, files under `~/.aws`, the machine's role. Behind an endpoint that is
named the bucket stands in the path, unless those say otherwise.

An object is there once its upload is over and not before, so nothing has to be renamed; its name
is known only once all bytes were read, so they are read twice, from a file. What a killed upload
leaves are parts that no listing shows: `sweep` asks for them.
"""

from __future__ import annotations

import hashlib
import logging
import re
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from typing import BinaryIO, cast

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from app.errors import Unavailable
from app.store.blobs import ANY_AGE, CHUNK_BYTES, UNAVAILABLE, Blob, key_of, missing
from app.telemetry import BLOB_ERRORS, log_event

_PATIENCE = Config(
    connect_timeout=5,
    read_timeout=30,
    retries={"mode": "standard", "total_max_attempts": 3},
    max_pool_connections=40,  # as many as the API has threads
)
# Part by part: as many uploads as there are threads must not fill the memory.
_PARTS = TransferConfig(
    multipart_threshold=16 * 2**20, multipart_chunksize=16 * 2**20, use_threads=False
)
_DIGEST = re.compile(r"[0-9a-f]{64}")
_NOT_THERE = ("404", "NoSuchKey", "NoSuchUpload")


class S3Blobs:
    def __init__(self, bucket: str, prefix: str) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._client = boto3.client("s3", config=_PATIENCE)

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
                with self._told():
                    self._client.upload_fileobj(
                        _LeftOpen(file), self._bucket, self._key(sha256), Config=_PARTS
                    )
        return Blob(sha256, size_bytes)

    def open(self, sha256: str) -> BinaryIO:
        """A file of its own: whoever reads an archive wants all of it, in an order of its own, and
        a connection that breaks off must not look like a damaged image."""
        with ExitStack() as files:
            file = cast("BinaryIO", files.enter_context(tempfile.TemporaryFile()))
            with self._told(sha256):
                found = self._client.get_object(Bucket=self._bucket, Key=self._key(sha256))
                for chunk in found["Body"].iter_chunks(CHUNK_BYTES):
                    file.write(chunk)
            file.seek(0)
            files.pop_all()
            return file

    def size_bytes(self, sha256: str) -> int | None:
        with self._told():
            try:
                found = self._client.head_object(Bucket=self._bucket, Key=self._key(sha256))
            except ClientError as error:
                if _code(error) in _NOT_THERE:
                    return None
                raise
        return int(found["ContentLength"])

    def delete(self, sha256: str) -> None:
        with self._told():
            self._client.delete_object(Bucket=self._bucket, Key=self._key(sha256))

    def stored(self, older_than_seconds: float = ANY_AGE) -> list[str]:
        before = datetime.now(UTC) - timedelta(seconds=older_than_seconds)
        pages = self._client.get_paginator("list_objects_v2")
        with self._told():
            names = [
                entry["Key"].rpartition("/")[2]
                for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix)
                for entry in page.get("Contents", ())
                if entry["LastModified"] < before
            ]
        return [name for name in names if _DIGEST.fullmatch(name)]

    def sweep(self, older_than_seconds: float) -> int:
        before = datetime.now(UTC) - timedelta(seconds=older_than_seconds)
        pages = self._client.get_paginator("list_multipart_uploads")
        with self._told():
            torn = [
                upload
                for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix)
                for upload in page.get("Uploads", ())
                if upload["Initiated"] < before
            ]
            for upload in torn:
                try:
                    self._client.abort_multipart_upload(
                        Bucket=self._bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                    )
                except ClientError as error:
                    if _code(error) not in _NOT_THERE:  # another worker sweeps too
                        raise
        return len(torn)

    def _key(self, sha256: str) -> str:
        return self._prefix + key_of(sha256)

    @contextmanager
    def _told(self, wanted: str = "") -> Iterator[None]:
        """What the client raises becomes an error that can be told; `wanted` may not be there."""
        try:
            yield
        except (BotoCoreError, ClientError) as error:
            code = _code(error)
            if wanted and code in _NOT_THERE:
                raise missing(wanted) from error
            BLOB_ERRORS.inc()
            log_event(
                "blobs.unavailable",
                level=logging.ERROR,
                bucket=self._bucket,
                endpoint=self._client.meta.endpoint_url,
                error=str(error),
            )
            if code and not code.startswith("5"):
                raise _unavailable(f"The store of archives refused: {code}.") from error
            raise _unavailable("The store of archives did not answer in time.") from error


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


def _code(error: Exception) -> str:
    """What S3 answered; empty where it did not."""
    return str(error.response["Error"]["Code"]) if isinstance(error, ClientError) else ""


def _unavailable(detail: str) -> Unavailable:
    return Unavailable(
        UNAVAILABLE, detail, "Try again in a moment; the service's log says more to its operator."
    )
