"""Fetching an archive that a task names by URI, from places the operator allowed and no others."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, cast
from urllib.parse import SplitResult, unquote, urlsplit

import httpx

from app.errors import Forbidden, Refused, TooLarge, Unavailable
from app.store.blobs import Blob, BlobStore

CHUNK_BYTES = 1 << 20
TIMEOUT = httpx.Timeout(30.0)

OnBytes = Callable[[int, int], None]  # done, total (0 where the server does not say)


def fetch_source(
    uri: str,
    *,
    prefixes: Sequence[str],
    blobs: BlobStore,
    max_bytes: int,
    on_bytes: OnBytes,
    transport: httpx.BaseTransport | None = None,
) -> Blob:
    """Copies what `uri` names into the blob store.

    Forbidden outside `prefixes`, TooLarge beyond `max_bytes`, Refused where nothing can be read
    there, Unavailable where the server does not answer. Redirects are not followed: they could
    lead out of `prefixes`.
    """
    parts = urlsplit(uri)
    if parts.scheme == "file":
        return _fetch_file(uri, parts, prefixes, blobs, max_bytes, on_bytes)
    if parts.scheme == "https":
        return _fetch_https(uri, parts, prefixes, blobs, max_bytes, on_bytes, transport)
    raise _not_allowed(uri)


def _fetch_file(
    uri: str,
    parts: SplitResult,
    prefixes: Sequence[str],
    blobs: BlobStore,
    max_bytes: int,
    on_bytes: OnBytes,
) -> Blob:
    if parts.netloc not in {"", "localhost"}:
        raise _not_allowed(uri)
    # Where links and dots lead is what counts, so allowed places and path are both resolved.
    path = Path(unquote(parts.path)).resolve()
    roots = [
        Path(unquote(urlsplit(prefix).path)).resolve()
        for prefix in prefixes
        if prefix.startswith("file://")
    ]
    if not any(path.is_relative_to(root) for root in roots):
        raise _not_allowed(uri)
    try:
        file = open(path, "rb", opener=_without_surprises)  # noqa: SIM115
    except OSError as error:
        raise _unreadable(uri, error.strerror or "it cannot be opened") from error
    with file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise _unreadable(uri, "it is not a regular file")
        if status.st_size > max_bytes:
            raise _too_large(uri, max_bytes)
        chunks = iter(lambda: file.read(CHUNK_BYTES), b"")
        return blobs.put(_stream(_counted(chunks, uri, max_bytes, status.st_size, on_bytes)))


def _without_surprises(path: str, flags: int) -> int:
    """No link may take the resolved path's place meanwhile, and no pipe hold the worker up."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _fetch_https(
    uri: str,
    parts: SplitResult,
    prefixes: Sequence[str],
    blobs: BlobStore,
    max_bytes: int,
    on_bytes: OnBytes,
    transport: httpx.BaseTransport | None,
) -> Blob:
    if not any(_is_under(parts, urlsplit(prefix)) for prefix in prefixes):
        raise _not_allowed(uri)
    headers = {"Accept-Encoding": "identity"}
    try:
        with (
            httpx.Client(transport=transport, timeout=TIMEOUT, follow_redirects=False) as client,
            client.stream("GET", uri, headers=headers) as response,
        ):
            if response.status_code >= 500:
                raise _no_answer(uri, f"it answered {response.status_code}")
            if response.status_code != 200:
                raise _unreadable(uri, f"the server answered {response.status_code}")
            total = int(response.headers.get("Content-Length", 0))
            if total > max_bytes:
                raise _too_large(uri, max_bytes)
            chunks = response.iter_bytes(CHUNK_BYTES)
            return blobs.put(_stream(_counted(chunks, uri, max_bytes, total, on_bytes)))
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise _no_answer(uri, type(error).__name__) from error


def _is_under(uri: SplitResult, prefix: SplitResult) -> bool:
    """Whether an https URI lies under an allowed one: same server, path below, no way back up."""
    if prefix.scheme != "https" or uri.username is not None or uri.password is not None:
        return False
    if (uri.hostname, uri.port or 443) != (prefix.hostname, prefix.port or 443):
        return False
    path = unquote(uri.path)
    if "\\" in path or any(segment in {".", ".."} for segment in path.split("/")):
        return False
    root = unquote(prefix.path).rstrip("/")
    return path == root or path.startswith(f"{root}/")


def _counted(
    chunks: Iterator[bytes], uri: str, max_bytes: int, total: int, on_bytes: OnBytes
) -> Iterator[bytes]:
    done = 0
    for chunk in chunks:
        done += len(chunk)
        if done > max_bytes:
            raise _too_large(uri, max_bytes)
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


def _stream(chunks: Iterator[bytes]) -> BinaryIO:
    return cast("BinaryIO", io.BufferedReader(_ChunkReader(chunks), CHUNK_BYTES))


def _not_allowed(uri: str) -> Forbidden:
    return Forbidden(
        "source-not-allowed",
        f"{uri} lies outside the places that this service may read from.",
        "Upload the archive, or ask the operator to add a prefix to TASK2VEC_SOURCE_PREFIXES.",
    )


def _unreadable(uri: str, reason: str) -> Refused:
    return Refused(
        "source-unreadable",
        f"{uri} could not be read: {reason}.",
        "Check that the URI names an archive that is there (redirects are not followed).",
    )


def _no_answer(uri: str, reason: str) -> Unavailable:
    return Unavailable(
        "source-unavailable",
        f"{uri} could not be fetched: {reason}.",
        "Try again later, or upload the archive.",
    )


def _too_large(uri: str, max_bytes: int) -> TooLarge:
    return TooLarge(
        "source-too-large",
        f"{uri} is larger than the {max_bytes} bytes that an archive may have.",
        "Name a smaller archive, or ask the operator to raise TASK2VEC_MAX_UPLOAD_BYTES.",
    )
