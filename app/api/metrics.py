"""What the service measures, for Prometheus: this process's requests, and what the rows tell.

Jobs, workers and indexes are told by the database, so every API process tells the same of them, and
workers need no port: a query takes the maximum over processes, not their sum.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterable, Iterator
from itertools import accumulate

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import app
from app.api.estimator import coverage
from app.api.resources import Reached, Resources
from app.store import jobs, tallies, workers
from app.telemetry import REQUEST_SECONDS, log_event

router = APIRouter(tags=["health"])

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


@router.get("/metrics", include_in_schema=False)
def metrics(reached: Reached) -> Response:
    registry = CollectorRegistry()
    registry.register(_Rows(reached))
    told = generate_latest(REGISTRY) + generate_latest(registry)
    return Response(told, headers={"Content-Type": CONTENT_TYPE_LATEST})


class TimedRequests:
    """Middleware. What a stream or a download takes after its first byte is its reader's pace."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()
        method = scope["method"] if scope["method"] in _METHODS else "other"
        answered = False

        def note(status: int) -> None:
            nonlocal answered
            if not answered:
                seconds = time.perf_counter() - began
                REQUEST_SECONDS.labels(method, _route(scope), status).observe(seconds)
            answered = True

        async def timed(message: Message) -> None:
            if message["type"] == "http.response.start":
                note(message["status"])
            await send(message)

        try:
            await self.app(scope, receive, timed)
        except Exception:
            note(500)  # what answers to it stands outside all middleware
            raise


def _route(scope: Scope) -> str:
    """As it is declared: ids in paths, and paths that are nobody's, would be a series each."""
    path: str | None = getattr(scope.get("route"), "path_format", None)
    if path is None:
        return "none"
    return f"/v1{path}" if scope["path"].startswith("/v1/") else path


class _Rows(Collector):
    def __init__(self, reached: Resources) -> None:
        self._reached = reached

    def collect(self) -> Iterator[Metric]:
        yield _gauge("build_info", "Version of the service", ["version"], [((app.__version__,), 1)])
        disk = shutil.disk_usage(self._reached.settings.data_dir.absolute())
        yield _gauge("disk_free_bytes", "Room where the data directory lies", [], [((), disk.free)])
        yield _gauge("disk_bytes", "Size of the disk of the data directory", [], [((), disk.total)])
        try:
            with self._reached.database.session(read_only=True) as session:
                found = list(self._of_rows(session))
        except SQLAlchemyError:
            log_event("store.unavailable", level=logging.ERROR, exc_info=True, path="/metrics")
            found = []
        yield _gauge("database_up", "Whether the database answered", [], [((), bool(found))])
        yield from found

    def _of_rows(self, session: Session) -> Iterator[Metric]:
        yield from _of_jobs(session)
        up: dict[tuple[str], int] = {}
        for worker in workers.alive(session, workers.FRESH_SECONDS):
            kind = worker.device.partition(":")[0]
            up[(kind,)] = up.get((kind,), 0) + 1
        yield _gauge(
            "workers", "Workers with a fresh heartbeat", ["device"], (up or {("none",): 0}).items()
        )
        yield _gauge(
            "index_lag",
            "Embeddings that a search index does not hold yet",
            ["space", "index"],
            self._reached.indexes.behind(session).items(),
        )
        kept = coverage(session)
        yield _gauge(
            "estimator_coverage",
            "Share of the newest outcomes within their 90% interval, by number forecast",
            ["number"],
            [((name,), found.coverage) for name, found in kept.items()],
        )
        yield _gauge(
            "estimator_drifting",
            "Whether that share is too small by more than chance",
            ["number"],
            [((name,), found.drifting) for name, found in kept.items()],
        )


def _of_jobs(session: Session) -> Iterator[Metric]:
    unfinished = jobs.count_unfinished(session).items()
    waits = [((kind,), wait) for kind, wait in jobs.oldest_wait_seconds(session).items()]
    yield _gauge("jobs", "Unfinished jobs", ["kind", "state"], unfinished)
    yield _gauge("oldest_wait_seconds", "Wait of the longest queued job", ["kind"], waits)
    untold = jobs.count_untold(session)
    yield _gauge("outbox_jobs", "Accepted jobs that wait for their turn", [], [((), untold)])

    wait = _histogram("job_wait_seconds", "Time from request to start", ["kind"])
    for (kind, _), cell in tallies.counted(session, "wait").items():
        wait.add_metric([kind], _buckets(cell), cell.seconds)
    yield wait
    run = _histogram("job_seconds", "Time from start to end", ["kind", "state"])
    for (kind, state), cell in tallies.counted(session, "run").items():
        run.add_metric([kind, state], _buckets(cell), cell.seconds)
    yield run
    retries = CounterMetricFamily(
        "task2vec_job_retries", "Attempts that came to nothing", labels=["kind", "cause"]
    )
    for (kind, cause), cell in tallies.counted(session, "retry").items():
        retries.add_metric([kind, cause], sum(cell.buckets))
    yield retries
    work = CounterMetricFamily(
        "task2vec_work_seconds", "Time of workers at jobs", labels=["kind", "device"]
    )
    for (kind, device), cell in tallies.counted(session, "work").items():
        work.add_metric([kind, device], cell.seconds)
    yield work


def _gauge(
    name: str, told: str, labels: list[str], values: Iterable[tuple[tuple[str, ...], float]]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"task2vec_{name}", told, labels=labels)
    for names, value in values:
        family.add_metric(names, value)
    return family


def _histogram(name: str, told: str, labels: list[str]) -> HistogramMetricFamily:
    return HistogramMetricFamily(f"task2vec_{name}", told, labels=labels)


def _buckets(cell: tallies.Counted) -> list[tuple[str, float]]:
    ends = [*(str(float(bound)) for bound in tallies.BOUNDS_SECONDS), "+Inf"]
    return list(zip(ends, accumulate(cell.buckets), strict=True))
