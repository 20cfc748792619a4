"""Which URIs a task may name as its source: those under a prefix that the operator allows.

A first look only, so that a caller learns at once: the worker that fetches looks again, at where
links and the server really lead.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import SplitResult, unquote, urlsplit

from app.errors import Forbidden, InvalidRequest


def require_allowed(uri: str, prefixes: Sequence[str]) -> None:
    """InvalidRequest where it is no file:// or https:// URI; Forbidden where it is not allowed."""
    try:
        parts = urlsplit(uri)
        allowed = any(_is_under(parts, urlsplit(prefix)) for prefix in prefixes)
    except ValueError as error:
        raise _unreadable(uri) from error
    if parts.scheme not in ("file", "https"):
        raise _unreadable(uri)
    if not allowed:
        raise Forbidden(
            "source-not-allowed",
            f"{uri} lies outside the places that this service may read from.",
            "Upload the archive, or ask the operator to add a prefix to TASK2VEC_SOURCE_PREFIXES.",
        )


def _is_under(uri: SplitResult, prefix: SplitResult) -> bool:
    if _server(uri) != _server(prefix):
        return False
    path, root = unquote(uri.path), unquote(prefix.path).rstrip("/")
    if "\\" in path or any(segment in (".", "..") for segment in path.split("/")):
        return False
    return path == root or path.startswith(f"{root}/")


def _server(parts: SplitResult) -> tuple[str, str | None, int | None, str | None]:
    host = None if parts.hostname == "localhost" and parts.scheme == "file" else parts.hostname
    return (
        parts.scheme,
        host,
        parts.port or (443 if parts.scheme == "https" else None),
        parts.username,
    )


def _unreadable(uri: str) -> InvalidRequest:
    return InvalidRequest(
        "source-scheme",
        f"{uri!r} is not a source that can be read.",
        "Name a file:// or https:// URI, or upload the archive.",
    )
