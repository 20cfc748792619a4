"""What a request did, or was refused, as a row of the audit log: neither secrets nor bodies."""

from __future__ import annotations

import logging
import threading
import time

from fastapi import Request
from sqlalchemy.exc import SQLAlchemyError

from app.errors import Task2VecError
from app.store.tables import AuditEvent
from app.telemetry import log_event

# Refusals of callers whom nobody knows: they must neither fill the disk nor keep the database busy.
STRANGERS_A_MINUTE = 20
_CHARACTERS = 200


def route_of(request: Request) -> str:
    """Method and template, as docs/reference.md writes them."""
    prefix = "/v1" if request.url.path.startswith("/v1/") else ""  # routers know only their part
    return f"{request.method} {prefix}{request.scope['route'].path}"


def deed(
    request: Request, status: int, made: str | None = None, problem: str | None = None
) -> AuditEvent:
    """`made` is the id of what came of it; without one it was done to what the path names."""
    caller = getattr(request.state, "caller", None)  # who it says it is, also if that did not do
    named = made or next(iter(request.path_params.values()), None)
    return AuditEvent(
        tenant=caller and caller.tenant,
        actor=caller and _written(caller.name),
        action=route_of(request),
        object_id=named and _written(named),
        address=request.client and _written(request.client.host),
        status=status,
        problem=problem,
    )


class Refusals:
    """Those of a process: each is a row before it is told, but of strangers' only so many."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._minute = self._strangers = 0

    def write(self, request: Request, error: Task2VecError) -> None:
        event = deed(request, error.status, problem=error.code)
        if event.tenant is None and self._are_too_many():
            log_event("request.refused", action=event.action, address=event.address)
            return
        try:
            with request.app.state.resources.database.session() as session:
                session.add(event)
        except SQLAlchemyError:  # it stays refused
            log_event("audit.unwritten", level=logging.ERROR, exc_info=True, action=event.action)

    def _are_too_many(self) -> bool:
        minute = int(time.monotonic() // 60)
        with self._lock:
            if minute != self._minute:
                self._minute, self._strangers = minute, 0
            self._strangers += 1
            return self._strangers > STRANGERS_A_MINUTE


def _written(text: str) -> str:
    """A path that was refused may name anything."""
    return "".join(letter for letter in text if letter.isprintable())[:_CHARACTERS]
