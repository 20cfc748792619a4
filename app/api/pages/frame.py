"""The frame of every page: its templates, what they may call, and errors that a person reads."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import asdict, is_dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

from fastapi import APIRouter, Depends, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import Response
from starlette.templating import Jinja2Templates

from app import words
from app.api import rates
from app.api.auth import Caller
from app.api.problems import headers_of, invalid_problem
from app.errors import Task2VecError

STATIC = "/static"
_FILES = Path(__file__).parent / "static"

PLACES = (
    ("/", "Tasks"),
    ("/atlas", "Atlas"),
    ("/estimator", "Estimator"),
    ("/jobs", "Jobs"),
    ("/operation", "Operation"),
)

_HEADERS = {
    # Nothing comes from elsewhere, and nothing that a page quotes can run.
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; "
        "form-action 'self'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
}


def _when(time: datetime) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC")


def _dicts(items: Iterable[Any]) -> list[dict[str, Any]]:
    """For a script to read; answers and dataclasses alike."""
    return [asdict(each) if is_dataclass(each) else each.model_dump() for each in items]  # type: ignore[arg-type]


def _given(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Of a page's parameters those that say something."""
    return {name: value for name, value in asked.items() if value not in (None, "", False)}


def _asked_of(asked: Mapping[str, Any], cursor: str) -> dict[str, Any]:
    return {**_given(asked), "cursor": cursor}


_environment = Environment(
    loader=PackageLoader("app.api.pages"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.filters |= {
    "counted": words.counted,
    "dicts": _dicts,
    "distance": words.distance,
    "duration": words.duration,
    "given": _given,
    "memory": words.memory,
    "money": words.money,
    "number": words.number,
    "percent": words.percent,
    "when": _when,
}
_environment.globals |= {"words": words, "asked_of": _asked_of}
_templates = Jinja2Templates(env=_environment)


class PageRoute(APIRoute):
    """A route whose refusals are pages too, and that takes an empty parameter for none."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        answer = super().get_route_handler()

        async def handle(request: Request) -> Response:
            filled = parse_qsl(request.scope["query_string"])  # a form sends its empty fields too
            request.scope["query_string"] = urlencode(filled).encode()
            try:
                return await answer(request)
            except Task2VecError as error:
                if error.status in (401, 403):
                    await run_in_threadpool(request.app.state.refusals.write, request, error)
                answered = _ask(request, error) if error.status == 401 else _tell(request, error)
                answered.headers.update(headers_of(error))
                return answered
            except RequestValidationError as error:
                problem = invalid_problem(request, error)
                return page(request, "problem.html", status=problem["status"], problem=problem)

        return handle


def page_router() -> APIRouter:
    return APIRouter(
        route_class=PageRoute,
        default_response_class=Response,
        dependencies=[Depends(rates.counted())],
    )


def _tell(request: Request, error: Task2VecError) -> Response:
    return page(request, "problem.html", status=error.status, problem=error.problem())


def _ask(request: Request, error: Task2VecError) -> Response:
    """Who it is, and then go where they wanted to; what was wrong, if they said it already."""
    here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return page(
        request,
        "login.html",
        status=401,
        wanted=getattr(request.state, "wanted", here),
        problem=None if error.code == "key-missing" else error.problem(),
    )


def page(request: Request, template: str, *, status: int = 200, **shown: Any) -> Response:
    root = request.scope.get("root_path", "")

    def at(path: str) -> str:
        return f"{root}{path}"

    def static(name: str) -> str:
        return f"{root}{STATIC}/{name}?{_digest(name)}"

    caller: Caller | None = getattr(request.state, "caller", None)
    context = {
        "at": at,
        "static": static,
        "places": PLACES,
        "here": request.url.path,
        "logged_in": caller if caller and caller.login else None,
        **shown,
    }
    return _templates.TemplateResponse(request, template, context, status, _HEADERS)


@cache
def _digest(name: str) -> str:
    """A file that changed has another address: browsers may keep what they have."""
    return hashlib.sha256((_FILES / name).read_bytes()).hexdigest()[:12]
