"""Which URIs a task may name as its source, and which may be called when its job ends.

Those under a prefix that the operator allows.

This looks at the words alone. Where links and names lead and what a server answers is seen when the
source is fetched.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args
from urllib.parse import unquote, urlsplit

from app.errors import Forbidden, InvalidRequest, Refused, TooLarge, Unavailable

Scheme = Literal["file", "https", "http", "s3"]
_PORTS = {"https": 443, "http": 80, "s3": 0}

# A name or an address as everybody writes it. Whatever else a resolver may take for one (Unicode,
# %2e, a hexadecimal number) would have to be read by us as by the one who connects.
_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?|[0-9a-f:.]{2,45}")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")
_UNENCODED = re.compile(r"[^\x21-\x7e]")


@dataclass(frozen=True, slots=True)
class Source:
    """`path` is decoded; `server` is a host with its port, or a bucket; None for a file."""

    uri: str
    scheme: Scheme
    server: tuple[str, int] | None
    path: str


def require_allowed(uri: str, prefixes: Sequence[str]) -> Source:
    """InvalidRequest where it is no source at all; Forbidden where it is not allowed."""
    source = parse(uri)
    if not any(_is_under(source, root) for root in _roots(prefixes)):
        raise not_allowed(uri)
    return source


def require_receiver(url: str, prefixes: Sequence[str]) -> Source:
    """An https URL under a prefix that the operator allows; Forbidden for any other."""
    refusal = Forbidden(
        "callback-not-allowed",
        f"{url} is no address that this service may call.",
        "Name an https:// URL under one of TASK2VEC_CALLBACK_PREFIXES, or ask the operator to add "
        "a prefix there.",
    )
    try:
        receiver = require_allowed(url, prefixes)
    except (InvalidRequest, Forbidden) as error:
        raise refusal from error
    if receiver.scheme != "https":
        raise refusal
    return receiver


def parse(uri: str) -> Source:
    """A URI of a known scheme; InvalidRequest for any other, Forbidden for another's files."""
    try:
        parts = urlsplit(uri)
        port = parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError as error:
        raise _no_source(uri) from error
    scheme: Scheme | None = next((name for name in get_args(Scheme) if name == parts.scheme), None)
    path = parts.path if scheme == "s3" else unquote(parts.path)  # keys are never encoded
    if scheme is None or _UNPRINTABLE.search(uri + path):
        raise _no_source(uri)
    if "@" in parts.netloc:  # a name and password would stand in every answer and log
        raise not_allowed(uri)
    if scheme == "file":
        if parts.netloc not in ("", "localhost"):
            raise not_allowed(uri)
        return Source(uri, scheme, None, path)
    if not _HOST.fullmatch(parts.hostname or ""):
        raise _no_source(uri)
    if scheme != "s3" and _UNENCODED.search(uri):
        raise _no_source(uri)
    return Source(uri, scheme, (parts.hostname or "", port), path)


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
        "Check that the URI names an archive that is there, and that this service may read it.",
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
        "Name a https:// URI, one of an s3:// bucket or a file:// (plain http:// only where the"
        " operator allows it), or upload the archive.",
    )
