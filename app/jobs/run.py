"""A job from its start to its end, whatever it does: tried again, refused, failed, handed back."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Any

import torch
from sqlalchemy.exc import OperationalError

from app import tracing
from app.embedding.dataset import RefusedSet
from app.errors import (
    NO_SPACE,
    Cancelled,
    Conflict,
    Forbidden,
    Refused,
    Task2VecError,
    TooLarge,
    Unavailable,
    UnsupportedMedia,
    is_disk_full,
)
from app.jobs.bench import Workbench
from app.jobs.embed_task import embed
from app.jobs.engine import HandBack
from app.jobs.finetune import finetune
from app.jobs.predict import classify
from app.jobs.score import score
from app.store import archives, finetunes, jobs, predictions, tallies
from app.store.archives import GONE
from app.store.blobs import UNAVAILABLE
from app.store.intake import Intake
from app.store.jobs import ASIDE, PREDICT, EndState, Start
from app.store.turns import FINETUNE, SCORE
from app.telemetry import log_event

REFUSALS = (Refused, TooLarge, UnsupportedMedia, Forbidden)
"""Errors whose cause is the set or its source: the task ends as `refused`, not as `failed`."""

_WORK: dict[str, Callable[[Start, Workbench], None]] = {
    FINETUNE: finetune,
    SCORE: score,
    PREDICT: classify,
}
"""By kind of job; any other embeds."""


def run_job(job_id: str, bench: Workbench) -> None:
    """Brings the job to its end, whatever that is; nothing to do where it has one.

    Raises HandBack where the worker is to stop first: the job goes back to the queue.
    """
    if bench.stopping():
        raise HandBack
    with bench.database.session() as session:
        start = jobs.start_job(session, job_id, bench.settings.max_job_attempts)
    if start is None:
        log_event("job.skipped", job_id=job_id)
        _forget_blobs(job_id, bench)
        return
    log_event("job.started", job_id=job_id, task_id=start.task_id, version=start.task_version)
    if start.attempt == 1:
        tracing.waited("queue", start.traceparent, start.accepted_at)
    began = time.monotonic()
    try:
        with tracing.job(
            start.kind,
            start.traceparent,
            job_id=job_id,
            task_id=start.task_id,
            attempt=start.attempt,
        ) as ended:
            state = _bring_to_end(start, bench)
            ended(state)
    except Conflict as conflict:
        if not _is_stale(conflict):
            raise
        log_event("job.taken_over", level=logging.WARNING, job_id=job_id)
        return
    finally:
        _count_work(start, time.monotonic() - began, bench)
    if start.kind in (FINETUNE, PREDICT):
        _forget_blobs(job_id, bench)
    seconds = round(time.monotonic() - began, 3)
    log_event(
        f"{start.kind if start.kind in ASIDE else 'task'}.{state}",
        task_id=start.task_id,
        job_id=job_id,
        duration_seconds=seconds,
    )


def _bring_to_end(start: Start, bench: Workbench) -> EndState:
    try:
        _WORK.get(start.kind, embed)(start, bench)
    except HandBack:
        with bench.database.session() as session:
            jobs.release_job(session, start.job_id, start.token, counted=False)
        log_event("job.handed_back", job_id=start.job_id)
        raise
    except Exception as error:
        if _is_stale(error):
            raise
        passing = _may_pass(error) or (start.kind == FINETUNE and _code(error) == NO_SPACE)
        if passing and start.attempt < bench.settings.max_job_attempts:
            _try_again(start, error, bench)
            raise
        state, problem = _verdict(error)
        if state == "failed":
            _log_failure(start, error)
        with bench.database.session() as session:
            jobs.finish_job(
                session,
                start.job_id,
                start.token,
                state,
                problem=problem,
                intake=_intake_of(error, start),
            )
        return state
    return "succeeded"


def _forget_blobs(job_id: str, bench: Workbench) -> None:
    """Of a job that has ended, what it was to classify and what it would have gone on from; where
    that fails, housekeeping does it."""
    with suppress(OperationalError, OSError, Unavailable), bench.database.session() as session:
        digests = predictions.images_of(session, job_id)
        digests += finetunes.checkpoint_of(session, job_id)
        archives.delete_unneeded(session, bench.blobs, digests)


def _count_work(start: Start, seconds: float, bench: Workbench) -> None:
    with suppress(OperationalError), bench.database.session() as session:
        tallies.add(session, "work", start.kind, bench.device, seconds)


def _log_failure(start: Start, error: Exception) -> None:
    """What whoever asked can change needs no trace."""
    theirs = isinstance(error, Task2VecError) and error.status < HTTPStatus.INTERNAL_SERVER_ERROR
    log_event(
        "job.failed",
        level=logging.WARNING if theirs else logging.ERROR,
        exc_info=not theirs,
        job_id=start.job_id,
        code=_code(error) or type(error).__name__,
    )


def _try_again(start: Start, error: Exception, bench: Workbench) -> None:
    """The job goes back to the queue, counted: the next `reconcile` starts it anew."""
    log_event(
        "job.to_be_tried_again",
        level=logging.WARNING,
        exc_info=True,
        job_id=start.job_id,
        attempt=start.attempt,
    )
    with bench.database.session() as session:
        jobs.release_job(session, start.job_id, start.token, counted=True)
        tallies.add(session, "retry", start.kind, _whose_trouble(error))


def _whose_trouble(error: Exception) -> str:
    if _code(error) == UNAVAILABLE:
        return "blobs"
    return "database" if isinstance(error, OperationalError) else "disk"


def _may_pass(error: Exception) -> bool:
    """Whether it is a store's or the disk's trouble, and may be over in a while."""
    if _code(error) in (UNAVAILABLE, GONE):
        return True
    return isinstance(error, OperationalError | OSError) and not is_disk_full(error)


def _code(error: Exception) -> str:
    return error.code if isinstance(error, Task2VecError) else ""


def _intake_of(error: Exception, start: Start) -> Intake | None:
    """What a refused set's report says, where all of its files were looked at."""
    if not isinstance(error, RefusedSet):
        return None
    return Intake(start.label_kind, None, None, error.report.summary(), error.report.files)


def _verdict(error: Exception) -> tuple[EndState, dict[str, Any] | None]:
    """How the job ends, and the problem document that says why; no internals in it."""
    match error:
        case Cancelled():
            return "cancelled", None
        case Task2VecError():
            return ("refused" if isinstance(error, REFUSALS) else "failed"), error.problem()
        case MemoryError() | torch.cuda.OutOfMemoryError():
            told: Task2VecError = Unavailable(
                "out-of-memory",
                "The worker ran out of memory.",
                "Send fewer images, or ask the operator for a worker with more memory.",
            )
        case OSError() if is_disk_full(error):
            told = Unavailable(
                NO_SPACE,
                "The worker's disk is full.",
                "Send the request again once the operator has made room.",
            )
        case _:
            told = Task2VecError(
                "internal",
                "The worker met an error that is not yours.",
                "Send the request again; if that fails too, tell the operator the job's id.",
            )
    return "failed", told.problem()


def _is_stale(error: Exception) -> bool:
    return isinstance(error, Conflict) and error.code == "stale-token"
