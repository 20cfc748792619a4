"""The frame of every page: its templates, what they may call, and errors that a person reads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import asdict, is_dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

from fastapi import APIRouter, Depends, Request
from fastapi.routing import APIRoute
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import Response
from starlette.templating import Jinja2Templates

from app import words
from app.api import formats, problems, rates
from app.api.auth import Caller

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
    "factor": words.factor,
    "given": _given,
    "memory": words.memory,
    "energy": words.energy,
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
            except Exception as error:  # whatever a program would be told, a person is
                return _told(request, await problems.tell(request, error))

        return handle


def page_router() -> APIRouter:
    return APIRouter(
        route_class=PageRoute,
        default_response_class=Response,
        dependencies=[Depends(rates.counted())],
    )


async def refused_by_framework(request: Request, error: Exception) -> Response:
    """Of addresses that are nobody's: whoever prefers pages reads one."""
    document = await problems.tell(request, error)
    is_page = formats.choose(request, None, ("json", "html")) == "html"
    return _told(request, document) if document.status_code == 404 and is_page else document


def _told(request: Request, document: Response) -> Response:
    """A problem document as a page. Who is not known is asked who it is, and goes where it wanted
    to."""
    problem = json.loads(bytes(document.body))
    if document.status_code == 401:
        here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        answered = page(
            request,
            "login.html",
            status=401,
            wanted=getattr(request.state, "wanted", here),
            problem=None if problem["type"] == "/problems/key-missing" else problem,
        )
    else:
        answered = page(request, "problem.html", status=document.status_code, problem=problem)
    for name in set(document.headers) - set(answered.headers):
        answered.headers[name] = document.headers[name]
    return answered


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
