"""For operators: alive, and ready."""

from __future__ import annotations

import logging

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from sqlalchemy.exc import SQLAlchemyError

import app
from app.api.resources import Reached
from app.api.schemas import Health, Readiness
from app.store import workers
from app.telemetry import log_event

router = APIRouter(tags=["health"])


@router.get("/healthz", response_model=Health)
def healthz() -> Health:
    """The process answers."""
    return Health(status="ok", version=app.__version__)


@router.get("/readyz", response_model=Readiness, responses={503: {"model": Readiness}})
def readyz(request: Request, reached: Reached) -> JSONResponse:
    """Migrated, the library loaded, the stores there, and a worker warmed up: a task sent now will
    be embedded."""
    try:
        with reached.database.session(read_only=True) as session:
            ready = bool(workers.alive(session, workers.FRESH_SECONDS))
        reasons = [] if ready else ["no worker has warmed up yet, or its heartbeat stopped"]
    except SQLAlchemyError:
        log_event("store.unavailable", level=logging.ERROR, exc_info=True)
        reasons = ["the database does not answer"]
    if not reached.blobs.answers():
        reasons.append("the store of archives does not answer")
    if request.app.state.stopping.is_set():  # last: the looks above may take seconds
        reasons.append("the service is stopping")
    answer = Readiness(ready=not reasons, reasons=reasons)
    return JSONResponse(answer.model_dump(), 503 if reasons else 200)
