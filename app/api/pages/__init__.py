"""What a person sees in a browser: the same answers as under /v1, as pages."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.staticfiles import StaticFiles

from app.api.pages import atlas, compare, estimator, home, jobs, login, operation, runs, task
from app.api.pages.frame import STATIC

ROUTERS = (
    home.router,
    task.router,
    runs.router,
    compare.router,
    atlas.router,
    estimator.router,
    jobs.router,
    operation.router,
)


def serve(service: FastAPI) -> None:
    for router in ROUTERS:
        service.include_router(router, include_in_schema=False)
    service.include_router(
        login.router, include_in_schema=False, max_body_size=login.MAX_FORM_BYTES
    )
    service.mount(STATIC, StaticFiles(packages=[("app.api.pages", "static")]))
