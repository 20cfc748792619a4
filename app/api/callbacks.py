"""Callbacks: asked for with a job, signed with a secret of the tenant's."""

from __future__ import annotations

from fastapi import APIRouter, Response
from sqlalchemy.orm import Session

from app.api.auth import Tenant
from app.api.problems import problems
from app.api.repeats import Post
from app.api.resources import Resources, Writing
from app.api.schemas import CallbackAnswer, CallbackSecret
from app.sources import require_receiver
from app.store import callbacks as store
from app.store.idempotency import Answer
from app.store.tables import Job

router = APIRouter(tags=["jobs"])


@router.post(
    "/callback-secret",
    status_code=201,
    response_model=CallbackSecret,
    responses=problems(409),
)
def post_callback_secret(tenant: Tenant, post: Post, session: Writing) -> Response:
    """A new secret, told in this answer and in no other: from now on calls are signed with it."""

    def make() -> Answer:
        return Answer(201, {}, told_once={"secret": store.renew_secret(session, tenant)})

    return post.once(session, make)


def ask_callback(reached: Resources, session: Session, job: Job | None, url: str | None) -> None:
    """In the unit of work that accepts the job; raises as `require_callback`. Without a job there
    is nothing to hear of."""
    if url is not None:
        require_receiver(url, reached.settings.callback_prefixes)
        if job is not None:
            store.ask(session, job, url)


def require_callback(reached: Resources, session: Session, tenant: str, url: str | None) -> None:
    """Forbidden where that address may not be called, Conflict where calls would not be signed."""
    if url is not None:
        require_receiver(url, reached.settings.callback_prefixes)
        store.require_secret(session, tenant)


def callback_of(session: Session, job: Job) -> CallbackAnswer | None:
    row = store.of_job(session, job)
    if row is None:
        return None
    return CallbackAnswer(
        id=row.id, url=row.url, state=row.state, attempts=row.attempts, problem=row.problem
    )
