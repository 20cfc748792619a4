"""Which URIs a task may name as its source: those under a prefix that the operator allows.

This looks at the words alone. Where links lead and what a server answers is seen when the source is
fetched.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from app.errors import Forbidden, InvalidRequest, Refused, TooLarge, Unavailable


@dataclass(frozen=True, slots=True)
class Source:
    """`path` is decoded; `server` is the host of an https URI with its port, None for a file."""

    uri: str
    scheme: Literal["file", "https"]
    server: tuple[str, int] | None
    path: str


def require_allowed(uri: str, prefixes: Sequence[str]) -> Source:
    """InvalidRequest where it is no source at all; Forbidden where it is not allowed."""
    source = parse(uri)
    if not any(_is_under(source, root) for root in _roots(prefixes)):
        raise not_allowed(uri)
    return source


def parse(uri: str) -> Source:
    """A file:// or https:// URI; InvalidRequest for any other, Forbidden for another's files."""
    try:
        parts = urlsplit(uri)
        port = parts.port or 443
    except ValueError as error:
        raise _no_source(uri) from error
    path = unquote(parts.path)
    if any(ord(letter) < 32 for letter in path):
        raise _no_source(uri)
    if "@" in parts.netloc:  # a name and password would stand in every answer and log
        raise not_allowed(uri)
    if parts.scheme == "https" and parts.hostname:
        return Source(uri, "https", (parts.hostname, port), path)
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost"):
            raise not_allowed(uri)
        return Source(uri, "file", None, path)
    raise _no_source(uri)


def allowed_directories(prefixes: Sequence[str]) -> list[Path]:
    """What the operator allows on this machine's disks."""
    return [Path(root.path) for root in _roots(prefixes) if root.scheme == "file"]


def not_allowed(uri: str) -> Forbidden:
    return Forbidden(
        "source-not-allowed",
        f"{uri} lies outside the places that this service may read from.",
        "Upload the archive, or ask the operator to add a prefix to TASK2VEC_SOURCE_PREFIXES.",
    )


def unreadable(uri: str, reason: str) -> Refused:
    return Refused(
        "source-unreadable",
        f"{uri} could not be read: {reason}.",
        "Check that the URI names an archive that is there (redirects are not followed).",
    )


def unavailable(uri: str, reason: str) -> Unavailable:
    return Unavailable(
        "source-unavailable",
        f"{uri} could not be fetched: {reason}.",
        "Try again later, or upload the archive.",
    )


def too_large(uri: str, max_bytes: int) -> TooLarge:
    return TooLarge(
        "source-too-large",
        f"{uri} is larger than the {max_bytes} bytes that an archive may have.",
        "Name a smaller archive, or ask the operator to raise TASK2VEC_MAX_UPLOAD_BYTES.",
    )


def _roots(prefixes: Sequence[str]) -> list[Source]:
    """Prefixes that are no source allow nothing."""
    roots = []
    for prefix in prefixes:
        with suppress(InvalidRequest, Forbidden):
            roots.append(parse(prefix))
    return roots


def _is_under(source: Source, root: Source) -> bool:
    if (source.scheme, source.server) != (root.scheme, root.server):
        return False
    if "\\" in source.path or any(part in (".", "..") for part in source.path.split("/")):
        return False
    folder = root.path.rstrip("/")
    return source.path == folder or source.path.startswith(f"{folder}/")


def _no_source(uri: str) -> InvalidRequest:
    return InvalidRequest(
        "source-scheme",
        f"{uri!r} is not a source that can be read.",
        "Name a file:// or https:// URI, or upload the archive.",
    )
