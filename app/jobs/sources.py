"""Fetching the archive that a task names by URI, once `app.sources` allows it."""

from __future__ import annotations

import io
import os
import re
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, cast

import httpx

from app.errors import Unavailable
from app.jobs.pinned import pinned_transport
from app.sources import (
    Source,
    allowed_directories,
    not_allowed,
    require_allowed,
    too_large,
    unavailable,
    unreadable,
)
from app.store.blobs import Blob, BlobStore

CHUNK_BYTES = 1 << 20
TIMEOUT = httpx.Timeout(30.0)  # of each read, so that a silent server is left soon
MAX_REDIRECTS = 5
MAX_SECONDS = 3600.0  # of the whole, so that one that trickles is left some time

OnBytes = Callable[[int, int], None]  # done, total (0 where the server does not say)


def fetch_source(
    uri: str,
    *,
    prefixes: Sequence[str],
    blobs: BlobStore,
    max_bytes: int,
    on_bytes: OnBytes,
    networks: Sequence[str] = (),
    transport: httpx.BaseTransport | None = None,
) -> Blob:
    """Copies what `uri` names into the blob store.

    Forbidden outside `prefixes`, also where a redirect leads there, and where the server's address
    is neither public nor in `networks`; TooLarge beyond `max_bytes`, Refused where nothing can be
    read there, Unavailable where the server does not answer or takes too long.
    """
    source = require_allowed(uri, prefixes)
    if source.scheme == "file":
        return _fetch_file(source, allowed_directories(prefixes), blobs, max_bytes, on_bytes)
    if source.scheme == "s3":
        return _fetch_s3(source, blobs, max_bytes, on_bytes)
    transport = transport or pinned_transport(networks)
    return _fetch_http(source, prefixes, blobs, max_bytes, on_bytes, transport)


def _fetch_file(
    source: Source, allowed: Sequence[Path], blobs: BlobStore, max_bytes: int, on_bytes: OnBytes
) -> Blob:
    # Where links lead is what counts, so allowed places and path are both resolved.
    path = Path(source.path).resolve()
    if not any(path.is_relative_to(directory.resolve()) for directory in allowed):
        raise not_allowed(source.uri)
    try:
        file = open(path, "rb", opener=_without_surprises)  # noqa: SIM115
    except OSError as error:
        raise unreadable(source.uri, error.strerror or "it cannot be opened") from error
    with file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise unreadable(source.uri, "it is not a regular file")
        chunks = iter(lambda: file.read(CHUNK_BYTES), b"")
        return _keep(source, chunks, status.st_size, blobs, max_bytes, on_bytes)


def _without_surprises(path: str, flags: int) -> int:
    """No link may take the resolved path's place meanwhile, and no pipe hold the worker up."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _fetch_http(
    source: Source,
    prefixes: Sequence[str],
    blobs: BlobStore,
    max_bytes: int,
    on_bytes: OnBytes,
    transport: httpx.BaseTransport,
) -> Blob:
    # No proxy of the environment: it would look names up by itself.
    with httpx.Client(transport=transport, timeout=TIMEOUT, trust_env=False) as client:
        for _ in range(MAX_REDIRECTS + 1):
            try:
                with client.stream(
                    "GET", source.uri, headers={"Accept-Encoding": "identity"}
                ) as response:
                    if response.has_redirect_location:
                        source = require_allowed(_target(response), prefixes)
                        continue
                    _require_plain_answer(source, response)
                    # As it comes in, not in even chunks: those of a trickle would take for ever to
                    # fill.
                    chunks = response.iter_raw()
                    total = _declared_bytes(response)
                    return _keep(source, chunks, total, blobs, max_bytes, on_bytes)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise unavailable(source.uri, type(error).__name__) from error
    raise unreadable(source.uri, f"the server redirects more than {MAX_REDIRECTS} times")


def _target(response: httpx.Response) -> str:
    return str(response.url.join(response.headers["Location"]))


def _fetch_s3(source: Source, blobs: BlobStore, max_bytes: int, on_bytes: OnBytes) -> Blob:
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError
    except ModuleNotFoundError as error:
        raise Unavailable(
            "extra-missing",
            f"Sources on S3 need a package that is not installed ({error.name}).",
            "Run: pip install 'task2vec-service[s3]'",
        ) from error
    bucket = source.server[0] if source.server else ""
    try:
        client = boto3.client("s3", config=Config(connect_timeout=5, read_timeout=30))
        found = client.get_object(Bucket=bucket, Key=source.path.removeprefix("/"))
        chunks = found["Body"].iter_chunks(CHUNK_BYTES)
        return _keep(source, chunks, int(found["ContentLength"]), blobs, max_bytes, on_bytes)
    except ClientError as error:
        code = str(error.response["Error"]["Code"])
        if int(error.response["ResponseMetadata"]["HTTPStatusCode"]) >= 500:
            raise unavailable(source.uri, f"its store answered {code}") from error
        raise unreadable(source.uri, f"its store answered {code}") from error
    except BotoCoreError as error:
        raise unavailable(source.uri, type(error).__name__) from error


def _require_plain_answer(source: Source, response: httpx.Response) -> None:
    if response.status_code >= 500:
        raise unavailable(source.uri, f"it answered {response.status_code}")
    if response.status_code != 200:
        raise unreadable(source.uri, f"the server answered {response.status_code}")
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding != "identity":
        raise unreadable(source.uri, f"the server sent it as {encoding}, which nobody asked for")


def _declared_bytes(response: httpx.Response) -> int:
    """0 where the server does not say, or says nothing that is a size."""
    declared = response.headers.get("Content-Length", "")
    return int(declared) if re.fullmatch(r"[0-9]{1,18}", declared) else 0


def _keep(
    source: Source,
    chunks: Iterable[bytes],
    total: int,
    blobs: BlobStore,
    max_bytes: int,
    on_bytes: OnBytes,
) -> Blob:
    if total > max_bytes:
        raise too_large(source.uri, max_bytes)
    stream = _ChunkReader(_counted(source, chunks, total, max_bytes, on_bytes))
    return blobs.put(cast("BinaryIO", io.BufferedReader(stream, CHUNK_BYTES)))


def _counted(
    source: Source, chunks: Iterable[bytes], total: int, max_bytes: int, on_bytes: OnBytes
) -> Iterator[bytes]:
    give_up_at = time.monotonic() + MAX_SECONDS
    done = 0
    for chunk in chunks:
        done += len(chunk)
        if done > max_bytes:
            raise too_large(source.uri, max_bytes)
        if time.monotonic() > give_up_at:
            raise unavailable(source.uri, f"it took more than {MAX_SECONDS:g} s")
        on_bytes(done, total)
        yield chunk


class _ChunkReader(io.RawIOBase):
    """Chunks as they come, read as a file."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if not self._rest:
            self._rest = next((chunk for chunk in self._chunks if chunk), b"")
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size
