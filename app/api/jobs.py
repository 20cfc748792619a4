"""Jobs: how far they are, as a row or as a stream of events; taken back on request."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, NamedTuple

import anyio
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, Path, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.sse import EventSourceResponse, ServerSentEvent

from app.api.auth import Asking, Tenant
from app.api.callbacks import callback_of
from app.api.neighbours import Among, K, Metric, rank
from app.api.problems import problems
from app.api.resources import Reached, Reading, Writing
from app.api.schemas import JobAnswer, JobPage, JobProgress, JobState, NeighboursAnswer
from app.api.tasks import Cursor, IdPrefix, Limit
from app.api.uploads import forget_unneeded
from app.errors import NotFound, Unauthorised
from app.store import embeddings, predictions
from app.store import jobs as store
from app.store.tables import Job, now
from app.store.turns import priority_of

router = APIRouter(tags=["jobs"])

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

JobIdPath = Annotated[str, Path(pattern=r"^[A-Za-z0-9._:-]{1,100}$")]


@router.get("/jobs", response_model=JobPage, responses=problems(404))
def list_jobs(
    tenant: Tenant,
    session: Reading,
    limit: Limit = 50,
    cursor: Cursor = None,
    id_prefix: IdPrefix = None,
    state: JobState | None = None,
    task_id: Annotated[str | None, Query(max_length=100)] = None,
) -> JobPage:
    """Newest first."""
    found, next_cursor = store.list_jobs(
        session,
        tenant,
        limit=limit,
        cursor=cursor,
        id_prefix=id_prefix,
        state=state,
        task_id=task_id,
    )
    return JobPage(items=[_answer(job) for job in found], next_cursor=next_cursor)


@router.get("/jobs/{job_id}", response_model=JobAnswer, responses=problems(404, 409))
def get_job(
    reached: Reached,
    job_id: JobIdPath,
    tenant: Tenant,
    session: Reading,
    among: Among,
    k: K = 10,
    metric: Metric = None,
) -> JobAnswer:
    """The parameters ask for the result of a query by archive; others have none."""
    job = store.get_job(session, tenant, job_id)
    task, result = job.task, None
    if task.expires_at is not None and task.status == "ready" and task.embedding_seq is not None:
        embedding = embeddings.load(session, task.embedding_seq)
        result = rank(reached, session, tenant, embedding, k=k, metric=metric, among=among)
    return _answer(job, result).model_copy(update={"callback": callback_of(session, job)})


@router.delete("/jobs/{job_id}", response_model=JobAnswer, responses=problems(404))
def cancel_job(
    reached: Reached,
    job_id: JobIdPath,
    tenant: Tenant,
    session: Writing,
    after_commit: BackgroundTasks,
) -> JobAnswer:
    """A queued job ends at once, a running one within its present batch, an ended one stays."""
    job = store.request_cancel(session, tenant, job_id)
    if job.kind == store.PREDICT:
        after_commit.add_task(forget_unneeded, reached, predictions.images_of(session, job_id))
    return _answer(job)


class _Seen(NamedTuple):
    at: datetime  # when the row was last written
    progress: JobProgress


def _look(reached: Reached, job_id: JobIdPath, caller: Asking) -> _Seen:
    with reached.database.session(read_only=True) as session:
        caller.require_still_valid(session)
        job = store.get_job(session, caller.tenant, job_id)
        return _Seen(job.updated_at, _progress(job))


@router.get("/jobs/{job_id}/events", response_class=EventSourceResponse, responses=problems(404))
async def get_events(
    request: Request,
    reached: Reached,
    job_id: JobIdPath,
    caller: Asking,
    seen: Annotated[_Seen, Depends(_look)],
) -> AsyncIterator[ServerSentEvent]:
    """An event whenever something changes; the last one carries a final state.

    A stream taken up again (Last-Event-ID) begins with the present state: nothing older matters.
    One that ends before that is to be taken up again: the server is stopping, or the key ended.
    """
    yield _event(seen)
    told = seen.progress
    while told.state not in store.ENDED:
        await anyio.sleep(reached.look_seconds)
        if request.app.state.stopping.is_set():
            return
        try:
            seen = await run_in_threadpool(_look, reached, job_id, caller)
        except Unauthorised:
            return
        except NotFound:
            seen = _Seen(now(), _gone(told))
        if seen.progress != told:
            told = seen.progress
            yield _event(seen)


def stop_streams(service: FastAPI) -> None:
    """Ends the streams of events, which a stopping server would otherwise wait for."""
    service.state.stopping.set()


def _event(seen: _Seen) -> ServerSentEvent:
    microseconds = (seen.at - _EPOCH) // timedelta(microseconds=1)
    return ServerSentEvent(data=seen.progress, event="progress", id=str(microseconds))


def _gone(last: JobProgress) -> JobProgress:
    deleted = NotFound(
        "job-deleted",
        "The job was deleted with its task.",
        "Send the images again if that was not meant.",
    )
    return last.model_copy(
        update={"state": "cancelled", "remaining_seconds": None, "problem": deleted.problem()}
    )


def _progress(job: Job) -> JobProgress:
    return JobProgress(
        state=job.state,
        priority=priority_of(job),
        phase=job.phase,
        done=job.done,
        total=job.total,
        remaining_seconds=job.remaining_seconds,
        problem=job.problem,
    )


def _answer(job: Job, result: NeighboursAnswer | None = None) -> JobAnswer:
    here = f"/v1/jobs/{job.id}"
    return JobAnswer(
        id=job.id,
        kind=job.kind,
        task_id=job.task.id,
        state=job.state,
        priority=priority_of(job),
        phase=job.phase,
        done=job.done,
        total=job.total,
        remaining_seconds=job.remaining_seconds,
        attempts=job.attempts,
        cancel_requested=job.cancel_requested,
        problem=job.problem,
        result=result,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        links={"self": here, "events": f"{here}/events"},
    )
