"""Logging in: a browser shows an API key once, and a cookie stands for it from then on."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from starlette.responses import RedirectResponse

from app.api.auth import COOKIE, Caller
from app.api.deeds import deed
from app.api.pages.frame import PageRoute, page
from app.api.resources import Reached
from app.store import logins

MAX_FORM_BYTES = 2**14

# Anybody may ask for these: they come before it is known who asks.
router = APIRouter(route_class=PageRoute, default_response_class=Response)

Wanted = Annotated[str, Form(pattern=r"^/([^/\\\s][^\\\s]*)?$")]


@router.get("/login")
def get_login(request: Request, reached: Reached) -> Response:
    if not reached.settings.keys_required:
        return _go(_home(request))
    return page(request, "login.html", wanted=_home(request), problem=None)


@router.post("/login")
def post_login(
    request: Request, reached: Reached, key: Annotated[str, Form()], wanted: Wanted = "/"
) -> Response:
    request.state.wanted = wanted  # where it is asked again
    with reached.database.session() as session:
        found, cookie = logins.begin(session, key.strip())
        request.state.caller = Caller(found.tenant, f"key:{found.id}", found.scope, found.id)
        session.add(deed(request, 303))
    answer = _go(wanted)
    _give(answer, request, cookie, int(logins.LASTS.total_seconds()))
    return answer


@router.post("/logout")
def post_logout(request: Request, reached: Reached) -> Response:
    with reached.database.session() as session:
        logins.end(session, request.cookies.get(COOKIE, ""))
    answer = _go(f"{_root(request)}/login")
    _give(answer, request, "", 0)
    answer.headers["Clear-Site-Data"] = '"storage"'  # what was sent last, kept for its task's page
    return answer


def _give(answer: Response, request: Request, cookie: str, seconds: int) -> None:
    """No script reads it, and no other site's request that changes something carries it."""
    answer.set_cookie(
        COOKIE,
        cookie,
        max_age=seconds,
        path=_home(request),
        secure=request.url.scheme == "https",  # as a proxy in front says
        httponly=True,
        samesite="lax",
    )


def _go(to: str) -> RedirectResponse:
    return RedirectResponse(to, status_code=303)


def _home(request: Request) -> str:
    return f"{_root(request)}/"


def _root(request: Request) -> str:
    root: str = request.scope.get("root_path", "")
    return root
