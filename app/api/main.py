"""The HTTP service, put together."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, Depends, FastAPI
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from threadpoolctl import threadpool_limits

import app
from app.api import (
    atlas,
    audit,
    bodies,
    callbacks,
    catalogue,
    distances,
    docs,
    estimates,
    estimator,
    exports,
    finetunes,
    health,
    jobs,
    keys,
    metrics,
    neighbours,
    outcomes,
    pages,
    parts,
    plans,
    predictions,
    problems,
    queries,
    rates,
    scores,
    task_cards,
    tasks,
    tenant,
    timings,
    uploads,
    usage,
)
from app.api.auth import LOOPBACK_HOSTS, REQUIRED
from app.api.deeds import Refusals
from app.api.line import Lines
from app.api.pages.frame import refused_by_framework
from app.api.resources import Resources
from app.api.safety import SafetyHeaders
from app.api.schemas import (
    ArchiveQuery,
    CandidateAsked,
    DistancesQuery,
    FinetuneAsked,
    KeyAsked,
    NoMetadata,
    OutcomeChanges,
    OutcomeReport,
    PredictionAsked,
    Problem,
    RotationAsked,
    ScoresAsked,
    TaskChanges,
    TaskFromSource,
    TaskMetadata,
    TenantChanges,
    TimingReport,
    UploadAsked,
    VectorQuery,
)
from app.api.tokens import Provider
from app.settings import Settings, shared_directory
from app.store import cards, estimators, reference
from app.store.blobs import open_blobs
from app.store.estimators import Estimators
from app.store.indexes import open_indexes
from app.store.session import Database
from app.telemetry import log_event

# Schemas that the OpenAPI document refers to by name, beside those that FastAPI sees by itself.
_NAMED = (
    Problem,
    TaskMetadata,
    TaskFromSource,
    UploadAsked,
    NoMetadata,
    TaskChanges,
    ArchiveQuery,
    VectorQuery,
    DistancesQuery,
    FinetuneAsked,
    PredictionAsked,
    ScoresAsked,
    CandidateAsked,
    OutcomeReport,
    TenantChanges,
    OutcomeChanges,
    KeyAsked,
    RotationAsked,
    TimingReport,
)


def create_app(settings: Settings) -> FastAPI:
    """The service on these settings; database, cards and library are brought up at its start."""
    service = FastAPI(
        title="Task2Vec",
        version=app.__version__,
        summary="Which pretrained image model to fine-tune on a small labelled set, at what cost.",
        lifespan=_lifespan(settings),
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
        middleware=_middleware(settings),
        exception_handlers={**problems.HANDLERS, HTTPException: refused_by_framework},
        telemetry={
            "auto_configure": False,
            "metrics": False,
            "logs": False,
            "exclude": lambda scope: scope["path"] in ("/healthz", "/readyz", "/metrics"),
        },
    )
    service.state.stopping = threading.Event()
    service.state.refusals = Refusals()
    service.state.rates = rates.rates_of(settings)
    service.state.lines = Lines()
    docs.serve(service)
    pages.serve(service)
    service.include_router(health.router)
    service.include_router(metrics.router)
    service.include_router(
        _under_v1(
            tasks.router,
            exports.router,
            parts.router,
            neighbours.router,
            distances.router,
            estimates.router,
            task_cards.router,
            estimator.router,
            plans.router,
            outcomes.router,
            scores.router,
            finetunes.router,
            predictions.router,
            catalogue.router,
            timings.router,
            tenant.router,
            jobs.router,
            callbacks.router,
            atlas.router,
            keys.router,
            audit.router,
            usage.router,
        ),
        max_body_size=bodies.MAX_JSON_BYTES,
    )
    service.include_router(
        _under_v1(tasks.uploads, neighbours.uploads, predictions.uploads, are_uploads=True),
        max_body_size=settings.max_upload_bytes + uploads.MULTIPART_OVERHEAD_BYTES,
    )
    service.include_router(
        _under_v1(outcomes.imports, are_uploads=True),
        max_body_size=outcomes.MAX_TABLE_BYTES + 2**10,
    )
    _describe(service, keys_required=settings.keys_required)
    return service


def _under_v1(*routers: APIRouter, are_uploads: bool = False) -> APIRouter:
    count = rates.counted(uploads=are_uploads)
    under = APIRouter(
        prefix="/v1",
        dependencies=[REQUIRED, Depends(count), Depends(queries.refuse_unknown)],
        responses=problems.problems(400, 401, 403, 422, 429, 503),
    )
    for router in routers:
        under.include_router(router)
    return under


def _middleware(settings: Settings) -> list[Middleware]:
    always = [
        Middleware(metrics.TimedRequests),
        Middleware(rates.RateHeaders),
        Middleware(SafetyHeaders),
        Middleware(problems.PlainTextErrors),
    ]
    if settings.keys_required:
        return always
    return [
        *always,
        Middleware(TrustedHostMiddleware, allowed_hosts=LOOPBACK_HOSTS, www_redirect=False),
    ]


def _lifespan(settings: Settings) -> Any:
    @asynccontextmanager
    async def lifespan(service: FastAPI) -> AsyncIterator[None]:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        database = Database(settings.store_url)
        try:
            database.migrate(shared_directory("migrations"))
            with database.session() as session:
                cards.sync_shipped(session, settings.models_dir)
                loaded = reference.load_reference(session, settings.models_dir)
            service.state.resources = Resources(
                settings,
                database,
                open_blobs(settings.blobs_at, settings.blob_public_url),
                open_indexes(settings.vector_index, settings.index_dir, database),
                Estimators(estimators.shipped(settings.models_dir)),
                _provider(settings),
            )
            log_event("api.started", reference_tasks_written=loaded)
            # Requests are served side by side. A search whose products ran on all cores would wait
            # for those that the worker keeps busy, far longer than it computes.
            with threadpool_limits(1, user_api="blas"):
                yield
        finally:
            database.dispose()

    return lifespan


def _provider(settings: Settings) -> Provider | None:
    if not settings.oidc_issuer:
        return None
    return Provider(
        settings.oidc_issuer,
        settings.oidc_audience,
        tenant_claim=settings.oidc_tenant_claim,
        scopes_claim=settings.oidc_scopes_claim,
    )


def _describe(service: FastAPI, *, keys_required: bool) -> None:
    """The OpenAPI document: the schemas named by hand, and keys only where they are asked for."""
    generate = service.openapi

    def openapi() -> dict[str, Any]:
        if service.openapi_schema is None:
            document = generate()
            _, named = models_json_schema(
                [(model, "validation") for model in _NAMED],
                ref_template="#/components/schemas/{model}",
            )
            document["components"]["schemas"].update(named["$defs"])
            if not keys_required:
                del document["components"]["securitySchemes"]
                for operations in document["paths"].values():
                    for operation in operations.values():
                        operation.pop("security", None)
        return generate()

    service.openapi = openapi  # type: ignore[method-assign]
