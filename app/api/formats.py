"""The same answer as JSON, CSV, numpy file or page, as `?format=` or the Accept header asks."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from fastapi import Request, Response
from fastapi.responses import StreamingResponse

MEDIA_TYPES = {
    "json": "application/json",
    "csv": "text/csv",
    "html": "text/html",
    "npy": "application/x-npy",
    "npz": "application/zip",
    "parquet": "application/vnd.apache.parquet",
}

NEXT_CURSOR = "Task2Vec-Next-Cursor"  # a table has no cell for it

# A spreadsheet takes a cell that begins so for a formula.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
_PIECE_CHARACTERS = 2**16


def choose(request: Request, asked: str | None, offered: Sequence[str]) -> str:
    """`asked` for by name, else the offered one that the Accept header likes best, else JSON."""
    if asked is not None:
        return asked
    wishes = [_wish(part) for part in request.headers.get("accept", "").split(",")]
    for kind, quality in sorted(wishes, key=lambda wish: -wish[1]):
        for name in offered:
            if MEDIA_TYPES[name] == kind and quality > 0:
                return name
    return "json"


def also(*names: str) -> dict[str, Any]:
    """Of a route: the content it may answer with beside JSON, for its OpenAPI entry."""
    schema = {"csv": {"type": "string"}}
    binary = {"type": "string", "format": "binary"}
    return {"content": {MEDIA_TYPES[name]: {"schema": schema.get(name, binary)} for name in names}}


def csv_response(
    header: Sequence[str], rows: Iterable[Sequence[Any]], next_cursor: str | None = None
) -> Response:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(header)
    writer.writerows([_cell(value) for value in row] for row in rows)
    headers = {"Vary": "Accept", **_next(next_cursor)}
    return Response(text.getvalue(), media_type=MEDIA_TYPES["csv"], headers=headers)


def csv_stream(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Response:
    """Never held whole, and every cell as it stands: for a table that programs read back."""

    def pieces() -> Iterator[str]:
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(header)
        for row in rows:
            writer.writerow(row)
            if text.tell() >= _PIECE_CHARACTERS:
                yield text.getvalue()
                text.seek(0)
                text.truncate()
        yield text.getvalue()

    return StreamingResponse(pieces(), media_type=MEDIA_TYPES["csv"], headers={"Vary": "Accept"})


def file_response(content: bytes, name: str, kind: str, next_cursor: str | None = None) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="{name}.{kind}"', "Vary": "Accept"}
    return Response(content, media_type=MEDIA_TYPES[kind], headers=headers | _next(next_cursor))


def _next(cursor: str | None) -> dict[str, str]:
    return {} if cursor is None else {NEXT_CURSOR: cursor}


def _wish(part: str) -> tuple[str, float]:
    kind, _, parameters = part.partition(";")
    _, _, quality = parameters.replace(" ", "").partition("q=")
    try:
        return kind.strip().lower(), float(quality or 1)
    except ValueError:
        return kind.strip().lower(), 0.0


def _cell(value: Any) -> Any:
    if isinstance(value, str) and value.startswith(_FORMULA_STARTS):
        return f"'{value}"
    return value
