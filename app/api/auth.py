"""Who asks, and whether they may: the owner of an API key or of a provider's token, or `local` on a
loopback server that needs none."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import BackgroundTasks, Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.api.deeds import route_of
from app.api.resources import Reached, Resources
from app.api.tokens import expired
from app.errors import Forbidden, Unauthorised
from app.scopes import Scope, allows
from app.store import keys, logins
from app.store.tables import ApiKey

LOCAL = "local"
COOKIE = "task2vec_login"
# Names under which a browser on this machine reaches a loopback server. Any other name in the
# Host header is somebody's web page that made its own name resolve to 127.0.0.1.
LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")

# What a route needs where its method does not tell: to look is `read`, to change `write`.
_NEEDED: dict[str, Scope] = {
    "POST /v1/distances": "read",
    "POST /v1/neighbours": "read",  # of an archive, which becomes a job, `write`
    "GET /v1/keys": "admin",
    "POST /v1/keys": "admin",
    "POST /v1/keys/{key_id}/rotation": "admin",
    "DELETE /v1/keys/{key_id}": "admin",
    "GET /v1/audit": "admin",
    "POST /v1/callback-secret": "admin",
    "PATCH /v1/tenant": "admin",
}

_bearer = HTTPBearer(auto_error=False, description="only where the server asks for keys")


@dataclass(frozen=True, slots=True)
class Caller:
    """`name` is `key:ID`, `oidc:SUBJECT` or `local`; a token is valid `until` then, and a browser
    shows the cookie of its `login`."""

    tenant: str
    name: str
    scope: Scope | None
    key_id: str | None = None
    until: float | None = None
    login: str | None = None

    def require(self, needed: Scope) -> None:
        if not allows(self.scope, needed):
            raise Forbidden(
                "scope-missing",
                f"This needs the scope {needed!r}, and yours is {self.scope or 'none'}.",
                f"Ask whoever runs the service for a key or role with the scope {needed!r}.",
            )

    def require_still_valid(self, session: Session) -> None:
        """Unauthorised once key, log-in or token has ended: a stream may outlast it."""
        if self.login is not None:
            logins.key_of(session, self.login)
        if self.key_id is not None:
            keys.require_valid(keys.get_key(session, self.key_id))
        if self.until is not None and self.until < time.time():
            raise expired()


def _caller(
    request: Request,
    reached: Reached,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    after: BackgroundTasks,
) -> Caller:
    if not reached.settings.keys_required:
        caller = request.state.caller = Caller(LOCAL, "local", "admin")
        _refuse_other_origins(request)
    elif credentials is None and COOKIE in request.cookies:
        caller = _logged_in(request, reached, request.cookies[COOKIE], after)
    elif credentials is None:
        raise Unauthorised(
            "key-missing",
            "This server answers only to API keys"
            + (" and to its provider's tokens." if reached.provider else "."),
            "Send `Authorization: Bearer t2v_...`; `task2vec keys create` makes one.",
        )
    elif reached.provider and not credentials.credentials.startswith(keys.START):
        bearer = reached.provider.read(credentials.credentials)
        name = f"oidc:{bearer.subject}"
        caller = Caller(bearer.tenant, name, bearer.scope, until=bearer.until)
        request.state.caller = caller
    else:
        caller = _owner(request, reached, credentials.credentials, after)
    caller.require(_needed(request))
    return caller


async def _tenant(caller: Annotated[Caller, Depends(_caller)]) -> str:
    return caller.tenant


Asking = Annotated[Caller, Depends(_caller)]
Tenant = Annotated[str, Depends(_tenant)]
REQUIRED = Depends(_caller)


def _owner(request: Request, reached: Resources, secret: str, after: BackgroundTasks) -> Caller:
    with reached.database.session(read_only=True) as session:
        key = keys.find(session, secret)
    owner = request.state.caller = Caller(key.tenant, f"key:{key.id}", key.scope, key.id)
    _use(key, reached, after, secret)
    return owner


def _logged_in(request: Request, reached: Resources, cookie: str, after: BackgroundTasks) -> Caller:
    with reached.database.session(read_only=True) as session:
        key = logins.key_of(session, cookie)
    owner = request.state.caller = Caller(
        key.tenant, f"key:{key.id}", key.scope, key.id, login=cookie
    )
    _use(key, reached, after)
    _refuse_other_origins(request)
    return owner


def _use(
    key: ApiKey, reached: Resources, after: BackgroundTasks, secret: str | None = None
) -> None:
    keys.require_valid(key)
    if keys.is_unseen(key):
        after.add_task(_see, reached, key.id, secret)


def _see(reached: Resources, key_id: str, secret: str | None) -> None:
    """Once the answer is sent: nobody who only reads waits for those who write."""
    with suppress(SQLAlchemyError), reached.database.session() as session:  # the next use tells
        keys.see(session, key_id, secret)


def _needed(request: Request) -> Scope:
    of_method: Scope = "read" if request.method == "GET" else "write"
    return _NEEDED.get(route_of(request), of_method)


def _refuse_other_origins(request: Request) -> None:
    """Where no key is sent, any web page open in the browser could otherwise post here."""
    origin = request.headers.get("origin")
    if origin is None or request.method in ("GET", "HEAD"):
        return
    if urlsplit(origin).netloc != request.headers.get("host"):
        raise Forbidden(
            "foreign-origin",
            f"The request comes from a page of {origin}.",
            "Call from the server's own pages, from the command line or with an API key"
            " (TASK2VEC_AUTH=required asks for them).",
        )
