"""Who asks: the tenant of an API key, or `local` on a loopback server that needs none."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from app.api.resources import Reached
from app.errors import Forbidden, Unauthorised
from app.store import keys

LOCAL = "local"
# Names under which a browser on this machine reaches a loopback server. Any other name in the
# Host header is somebody's web page that made its own name resolve to 127.0.0.1.
LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")

_bearer = HTTPBearer(auto_error=False, description="only where the server asks for keys")


def _tenant(
    request: Request,
    reached: Reached,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> str:
    if not reached.settings.keys_required:
        _refuse_other_origins(request)
        return LOCAL
    if credentials is None:
        raise Unauthorised(
            "key-missing",
            "This server answers only to API keys.",
            "Send `Authorization: Bearer t2v_...`; `task2vec keys create` makes one.",
        )
    with reached.database.session(read_only=True) as session:
        tenant = keys.find_tenant(session, credentials.credentials)
    if tenant is None:
        raise Unauthorised(
            "key-unknown",
            "This API key is unknown or was revoked.",
            "Send a valid one; `task2vec keys create` makes one.",
        )
    return tenant


Tenant = Annotated[str, Depends(_tenant)]


def _refuse_other_origins(request: Request) -> None:
    """Without keys, any web page open on this machine could otherwise post here."""
    origin = request.headers.get("origin")
    if origin is None or request.method in ("GET", "HEAD"):
        return
    if urlsplit(origin).netloc != request.headers.get("host"):
        raise Forbidden(
            "foreign-origin",
            f"The request comes from a page of {origin}.",
            "Call from the command line or the server's own pages, or run it with API keys"
            " (TASK2VEC_AUTH=required).",
        )
