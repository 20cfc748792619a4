"""Query parameters that no route knows are mistakes, and told as such."""

from __future__ import annotations

from collections.abc import Iterator

from fastapi import Request
from fastapi.dependencies.models import Dependant

from app.api.problems import shortened
from app.errors import InvalidRequest


async def refuse_unknown(request: Request) -> None:
    known = sorted(set(_names(request.scope["route"].dependant)))
    unknown = [name for name in dict.fromkeys(request.query_params) if name not in known]
    if unknown:
        raise InvalidRequest(
            "unknown-parameter",
            f"There is no query parameter {shortened(', '.join(map(repr, unknown)))} here.",
            f"Use only these: {', '.join(known)}." if known else "This route takes none.",
        )


def _names(dependant: Dependant) -> Iterator[str]:
    yield from (field.alias for field in dependant.query_params)
    for inner in dependant.dependencies:
        yield from _names(inner)
