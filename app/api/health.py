"""For operators: alive, ready, and measured."""

from __future__ import annotations

import logging

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest
from sqlalchemy.exc import SQLAlchemyError

import app
from app.api.resources import Reached, Resources
from app.api.schemas import Health, Readiness
from app.store import jobs, workers
from app.telemetry import log_event

router = APIRouter(tags=["health"])

# A worker beats every two seconds, also while it computes.
HEARTBEAT_FRESH_SECONDS = 15.0


@router.get("/healthz", response_model=Health)
def healthz() -> Health:
    """The process answers."""
    return Health(status="ok", version=app.__version__)


@router.get("/readyz", response_model=Readiness, responses={503: {"model": Readiness}})
def readyz(reached: Reached) -> JSONResponse:
    """Migrated, the library loaded, and a worker warmed up: a task sent now will be embedded."""
    try:
        with reached.database.session(read_only=True) as session:
            ready = bool(workers.alive(session, HEARTBEAT_FRESH_SECONDS))
        reasons = [] if ready else ["no worker has warmed up yet, or its heartbeat stopped"]
    except SQLAlchemyError:
        log_event("store.unavailable", level=logging.ERROR, exc_info=True)
        reasons = ["the database does not answer"]
    answer = Readiness(ready=not reasons, reasons=reasons)
    return JSONResponse(answer.model_dump(), 503 if reasons else 200)


@router.get("/metrics", include_in_schema=False)
def metrics(reached: Reached) -> Response:
    """What this process measured, and what the rows tell of the workers', which are others."""
    told = generate_latest() + generate_latest(_rows_as_metrics(reached))
    return Response(told, headers={"Content-Type": CONTENT_TYPE_LATEST})


def _rows_as_metrics(reached: Resources) -> CollectorRegistry:
    registry = CollectorRegistry()
    counts = Gauge("task2vec_jobs", "Jobs by kind and state", ["kind", "state"], registry=registry)
    wait = Gauge(
        "task2vec_oldest_wait_seconds", "Wait of the longest queued job", registry=registry
    )
    up = Gauge("task2vec_workers", "Workers with a fresh heartbeat", registry=registry)
    with reached.database.session(read_only=True) as session:
        for (kind, state), count in jobs.count_by_state(session).items():
            counts.labels(kind, state).set(count)
        wait.set(jobs.oldest_wait_seconds(session))
        up.set(len(workers.alive(session, HEARTBEAT_FRESH_SECONDS)))
    return registry
