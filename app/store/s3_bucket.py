"""A place in a bucket of S3, or of a store that speaks its language.

Endpoint, region, keys and how a bucket is addressed come from where the tools of AWS look for them:
`AWS_*` of the environment, files under `~/.aws`, the machine's role. Behind an endpoint that is
named the bucket stands in the path, unless those say otherwise.
"""

from __future__ import annotations

import logging
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, BinaryIO, cast

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ConnectionClosedError

from app.errors import Unavailable
from app.store.blobs import CHUNK_BYTES, UNAVAILABLE, missing
from app.telemetry import BLOB_ERRORS, log_event

PATIENCE = Config(
    connect_timeout=5,
    read_timeout=10,
    retries={"mode": "standard", "total_max_attempts": 2},
    max_pool_connections=40,  # as many as the API has threads
    signature_version="s3v4",  # signs the headers of what others send, their checksums among them
)
IMPATIENCE = PATIENCE.merge(
    Config(connect_timeout=2, read_timeout=2, retries={"total_max_attempts": 1})
)
SILENT_SECONDS = 5.0
"""So long nobody asks a store again that did not answer: the threads that wait for it would be
missed by requests that do not need it."""
PULSE_SECONDS = 3.0
NOT_THERE = ("404", "NoSuchKey", "NoSuchUpload")


class Bucket:
    """`public_url`: where clients reach the store, if not where the service does."""

    def __init__(self, name: str, prefix: str, public_url: str = "") -> None:
        self.name = name
        self.prefix = f"{prefix}/" if prefix else ""
        self.client = boto3.client("s3", config=PATIENCE)
        self.signer = boto3.client("s3", config=PATIENCE, endpoint_url=public_url or None)
        self._probe = boto3.client("s3", config=IMPATIENCE)
        self._silent_until = 0.0
        self._pulse, self._answered, self._ask_again_at = threading.Lock(), False, 0.0

    def at(self, key: str) -> dict[str, str]:
        """What names it in a call."""
        return {"Bucket": self.name, "Key": self.prefix + key}

    def size_bytes(self, key: str) -> int | None:
        """None where nothing is there."""
        with self.told():
            try:
                found = self.client.head_object(**self.at(key))
            except ClientError as error:
                if code_of(error) in NOT_THERE:
                    return None
                raise
            if "ContentLength" not in found:  # the answer broke off
                raise ConnectionClosedError(endpoint_url=self.client.meta.endpoint_url)
            return int(found["ContentLength"])

    def spooled(self, key: str) -> BinaryIO:
        """A copy on disk, from its beginning; to be called where errors are `told`."""
        with ExitStack() as files:
            file = cast("BinaryIO", files.enter_context(tempfile.TemporaryFile()))
            found = self.client.get_object(**self.at(key))
            for chunk in found["Body"].iter_chunks(CHUNK_BYTES):
                file.write(chunk)
            file.seek(0)
            files.pop_all()
            return file

    def delete(self, key: str) -> None:
        with self.told():
            self.client.delete_object(**self.at(key))

    def without_prefix(self, key: str) -> str:
        """As `at` takes it."""
        return key.removeprefix(self.prefix)

    def listed(self, call: str, under: str, items: str) -> Iterator[dict[str, Any]]:
        """Whatever `call` lists under a prefix, page after page."""
        with self.told():
            pages = self.client.get_paginator(call)
            for page in pages.paginate(Bucket=self.name, Prefix=self.prefix + under):
                yield from page.get(items, ())

    def abort(self, key: str, upload: str) -> None:
        """Ends an unfinished upload; nothing to do where it has ended."""
        with self.told():
            try:
                self.client.abort_multipart_upload(**self.at(key), UploadId=upload)
            except ClientError as error:
                if code_of(error) not in NOT_THERE:
                    raise

    def answers(self) -> bool:
        """Asked by one caller every few seconds, who does not wait for long."""
        with self._pulse:
            if time.monotonic() >= self._ask_again_at:
                self._answered = False
                with suppress(BotoCoreError, ClientError):
                    self._probe.head_bucket(Bucket=self.name)
                    self._answered, self._silent_until = True, 0.0
                self._ask_again_at = time.monotonic() + PULSE_SECONDS
            return self._answered

    @contextmanager
    def told(self, wanted: str = "") -> Iterator[None]:
        """What the client raises becomes an error that can be told; the blob `wanted` may not be
        there."""
        if time.monotonic() < self._silent_until:
            raise _unavailable(_SILENT)
        try:
            yield
        except (BotoCoreError, ClientError) as error:
            code = code_of(error)
            if wanted and code in NOT_THERE:
                raise missing(wanted) from error
            BLOB_ERRORS.inc()
            log_event(
                "blobs.unavailable",
                level=logging.ERROR,
                bucket=self.name,
                endpoint=self.client.meta.endpoint_url,
                error=str(error),
            )
            if code and not code.startswith("5"):
                raise _unavailable(f"The store of archives refused: {code}.") from error
            if not code:
                self._silent_until = time.monotonic() + SILENT_SECONDS
            raise _unavailable(_SILENT) from error


def code_of(error: Exception) -> str:
    """What S3 answered; empty where it did not."""
    return str(error.response["Error"]["Code"]) if isinstance(error, ClientError) else ""


def _unavailable(detail: str) -> Unavailable:
    return Unavailable(
        UNAVAILABLE, detail, "Try again in a moment; the service's log says more to its operator."
    )


_SILENT = "The store of archives did not answer in time."
