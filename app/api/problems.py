"""Every error leaves as an RFC 9457 problem document that says what to change."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Sequence
from typing import Any

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from pydantic_core import ErrorDetails
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as NoFreeConnection
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api import safety
from app.api.schemas import PRINTABLE
from app.catalogue import CARD_NAME
from app.errors import NO_SPACE, NotFound, Task2VecError, Unavailable, is_disk_full
from app.telemetry import log_event

MEDIA_TYPE = "application/problem+json"
_RETRY_AFTER_SECONDS = 1
_TOLD_ERRORS = 20
_TOLD_LETTERS = 300
_METHODS = ("GET", "POST", "PATCH", "PUT", "DELETE")

# How PostgreSQL's states begin: connection lost, another transaction in the way, no connection
# free, a lock not given in time, the server going down or coming up.
_PASSING = ("08", "40", "53300", "55", "57")
_DISK_FULL = "53100"

# By type of pydantic's error; of a text that is not written as it must be, by the pattern.
_IN_WORDS = {
    "missing": "is missing",
    "extra_forbidden": "is no field here",
    "string_too_short": "takes {min_length} or more characters",
    "string_too_long": "takes {max_length} or fewer characters",
    "finite_number": "takes a finite number",
}
_WRITTEN = {
    CARD_NAME: "takes 100 or fewer of small letters, digits, '.', '_' and '-', a letter or digit "
    "first",
    PRINTABLE: "takes no control characters",
}

# What starlette refuses by itself: code, title, remedy.
_BY_STATUS: dict[int, tuple[str, str, str]] = {
    400: ("bad-request", "The request is malformed", "Check how the request is put together."),
    404: ("unknown-route", "Not found", "/docs lists the routes."),
    405: ("method-not-allowed", "Not allowed", "Use one of the methods in the Allow header."),
    413: (
        "body-too-large",
        "Too large",
        "Send less at once, or raise TASK2VEC_MAX_UPLOAD_BYTES for archives.",
    ),
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Of a route: the problem documents it may answer with, for its OpenAPI entry."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {status: {"content": {MEDIA_TYPE: {"schema": schema}}} for status in statuses}


def respond(problem: dict[str, Any], headers: dict[str, str] | None = None) -> Response:
    # Plain ASCII: a problem may quote a field name that is no valid Unicode.
    return Response(json.dumps(problem), problem["status"], headers, media_type=MEDIA_TYPE)


async def _told(request: Request, error: Task2VecError) -> Response:
    if error.status in (401, 403):
        await run_in_threadpool(request.app.state.refusals.write, request, error)
    return _tell(error)


def _tell(error: Task2VecError) -> Response:
    return respond(error.problem(), _headers_of(error))


def _headers_of(error: Task2VecError) -> dict[str, str]:
    """What goes with it: how to identify oneself, when to come again."""
    headers = {}
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if error.status in (429, 503) or error.code == "idempotency-key-in-use":
        seconds = error.extra.get("retry_after_seconds", _RETRY_AFTER_SECONDS)
        headers["Retry-After"] = str(seconds)
    return headers


async def _invalid(request: Request, error: RequestValidationError) -> Response:
    found: Sequence[ErrorDetails] = error.errors()
    if any(entry["loc"][0] == "path" for entry in found):
        unknown = NotFound(
            "unknown-id",
            f"Nothing can have the address {shortened(request.url.path)}.",
            "Take ids from the answers of this service.",
        )
        return _tell(unknown)
    errors = [
        {"field": shortened(_field(entry)), "message": shortened(_message(entry))}
        for entry in found[:_TOLD_ERRORS]
    ]
    named = ", ".join(dict.fromkeys(entry["field"] for entry in errors))
    problem: dict[str, Any] = {
        "type": "/problems/request-invalid",
        "title": "The request does not fit",
        "status": 422,
        "detail": f"These do not fit: {named}.",
        "remedy": "Change what `errors` names; /docs describes every field.",
        "errors": errors,
    }
    if len(found) > _TOLD_ERRORS:
        problem["more_errors"] = len(found) - _TOLD_ERRORS
    return respond(problem)


def shortened(text: str) -> str:
    """A field that nobody knows may have a name of any length."""
    return text if len(text) <= _TOLD_LETTERS else f"{text[:_TOLD_LETTERS]}..."


def _field(entry: ErrorDetails) -> str:
    whole, *parts = entry["loc"]
    if entry["type"] == "json_invalid":  # FastAPI gives the place in the text
        parts = [part for part in parts if isinstance(part, str)]
    return ".".join(map(str, parts)) or str(whole)


def _message(entry: ErrorDetails) -> str:
    if entry["type"] == "json_invalid":
        return f"not JSON: {entry.get('ctx', {}).get('error', entry['msg'])}"
    told = entry.get("ctx", {})
    if entry["type"] == "string_pattern_mismatch":
        return _WRITTEN.get(told["pattern"], entry["msg"])
    if entry["type"] in _IN_WORDS:
        return _IN_WORDS[entry["type"]].format(**told)
    return entry["msg"].removeprefix("Value error, ")


async def _refused_by_framework(request: Request, error: HTTPException) -> Response:
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = ", ".join(_allowed_methods(request))
    nothing = f"Nothing is at {shortened(request.url.path)}"
    detail = nothing if error.status_code == 404 else error.detail
    known = _BY_STATUS.get(error.status_code, _BY_STATUS[400])
    return respond(_framework_problem(error.status_code, detail, *known), headers)


def _framework_problem(
    status: int, detail: str, code: str, title: str, remedy: str
) -> dict[str, Any]:
    return {
        "type": f"/problems/{code}",
        "title": title,
        "status": status,
        "detail": f"{detail.rstrip('.')}.",
        "remedy": remedy,
    }


def _allowed_methods(request: Request) -> list[str]:
    """Of all routes with that path; the framework names those of the first one only."""
    return [
        method
        for method in _METHODS
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL
            for route in request.app.routes
        )
    ]


async def _store_failed(request: Request, error: OperationalError) -> Response:
    if error.connection_invalidated or _is_busy(error.orig):
        return await _store_busy(request, error)
    if _is_full(error.orig):
        return _no_space(request)
    return await _unexpected(request, error)


def _is_busy(error: BaseException | None) -> bool:
    if isinstance(error, sqlite3.Error):
        return _sqlite_code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
    state: str | None = getattr(error, "sqlstate", "")
    return state is None or state.startswith(_PASSING)  # None: PostgreSQL was not even reached


def _is_full(error: BaseException | None) -> bool:
    if isinstance(error, sqlite3.Error):
        return _sqlite_code(error) == sqlite3.SQLITE_FULL
    return getattr(error, "sqlstate", "") == _DISK_FULL


def _sqlite_code(error: sqlite3.Error) -> int:
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF  # the rest only refines it


async def _disk_failed(request: Request, error: OSError) -> Response:
    return _no_space(request) if is_disk_full(error) else await _unexpected(request, error)


def _no_space(request: Request) -> Response:
    log_event("disk.full", level=logging.ERROR, exc_info=True, path=request.url.path)
    full = Unavailable(
        NO_SPACE,
        "The service's disk is full: nothing was kept of this request.",
        "Send it again once the operator has made room.",
    )
    return _tell(full)


async def _store_busy(request: Request, _: Exception) -> Response:
    log_event("store.unavailable", level=logging.ERROR, exc_info=True, path=request.url.path)
    unavailable = Unavailable(
        "store-unavailable",
        "The database did not answer in time.",
        "Try again in a moment; the server's log says more.",
    )
    return _tell(unavailable)


async def _unexpected(request: Request, error: Exception) -> Response:
    log_event(
        "request.failed",
        level=logging.ERROR,
        exc_info=True,
        method=request.method,
        path=request.url.path,
        error=repr(error),
    )
    answer = respond(
        {
            "type": "/problems/internal-error",
            "title": "Internal error",
            "status": 500,
            "detail": "Something failed that should not have.",
            "remedy": "Try again; if it stays, tell the operator the time and path of the request.",
        }
    )
    safety.add(answer.headers, request.scope)  # this one leaves beside the middleware
    return answer


HANDLERS: dict[int | type[Exception], Any] = {
    Task2VecError: _told,
    RequestValidationError: _invalid,
    HTTPException: _refused_by_framework,
    OperationalError: _store_failed,
    OSError: _disk_failed,
    NoFreeConnection: _store_busy,
    Exception: _unexpected,
}


async def tell(request: Request, error: Exception) -> Response:
    """What the service answers to an error that a route let out."""
    kind = next(each for each in type(error).__mro__ if each in HANDLERS)
    answer: Response = await HANDLERS[kind](request, error)
    return answer


class PlainTextErrors:
    """Starlette's middleware (hosts, body limit) refuses in plain text: say it as a problem."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        replaced = False

        async def tell(message: Message) -> None:
            nonlocal replaced
            if message["type"] == "http.response.start" and _is_plain_error(message):
                replaced = True
                status = message["status"]
                answer = respond(_framework_problem(status, *_PLAIN_ERRORS[status]))
                await answer(scope, receive, send)
            elif not replaced:
                await send(message)

        await self.app(scope, receive, tell)


# Detail, code, title, remedy.
_PLAIN_ERRORS: dict[int, tuple[str, str, str, str]] = {
    400: (
        "The Host header names a host that this server does not answer for",
        "untrusted-host",
        "Not this machine",
        "Call it as localhost, or run it with API keys (TASK2VEC_AUTH=required).",
    ),
    413: ("The body is larger than this route takes", *_BY_STATUS[413]),
}


def _is_plain_error(message: Message) -> bool:
    kind = Headers(raw=message["headers"]).get("content-type", "")
    return message["status"] in _PLAIN_ERRORS and kind.startswith("text/plain")
