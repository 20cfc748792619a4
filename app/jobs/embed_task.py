"""The embedding jobs: load -> compute -> apply, with no session open while they compute.

A `reindex` is one too: of a task that has an embedding, through another probe.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, cast

import torch
from sqlalchemy.exc import OperationalError

from app.embedding.dataset import AskedLabelKind, RefusedSet, read_labelled_images
from app.embedding.embed import embed_images
from app.embedding.probe import Probe
from app.errors import (
    Cancelled,
    Conflict,
    Forbidden,
    Refused,
    Task2VecError,
    TooLarge,
    Unavailable,
    UnsupportedMedia,
)
from app.jobs.engine import HandBack
from app.jobs.progress import Progress
from app.jobs.sources import fetch_source
from app.limits import archive_limits
from app.settings import Settings
from app.store import archives, embeddings, jobs, tasks
from app.store.blobs import Blob, BlobStore
from app.store.intake import Intake, of_embedding
from app.store.jobs import EndState, Start
from app.store.session import Database
from app.store.spaces import REINDEX
from app.telemetry import log_event

REFUSALS = (Refused, TooLarge, UnsupportedMedia, Forbidden)
"""Errors whose cause is the set or its source: the task ends as `refused`, not as `failed`."""


@dataclass(frozen=True)
class Workbench:
    """What a worker has at hand for every job."""

    settings: Settings
    database: Database
    blobs: BlobStore
    probe: Callable[[str], Probe]
    stopping: Callable[[], bool]


def run_embed_task(job_id: str, bench: Workbench) -> None:
    """Brings the job to its end, whatever that is; nothing to do where it has one.

    Raises HandBack where the worker is to stop first: the job goes back to the queue.
    """
    if bench.stopping():
        raise HandBack
    with bench.database.session() as session:
        start = jobs.start_job(session, job_id, bench.settings.max_job_attempts)
    if start is None:
        log_event("job.skipped", job_id=job_id)
        return
    log_event("job.started", job_id=job_id, task_id=start.task_id, version=start.task_version)
    began = time.monotonic()
    try:
        state = _bring_to_end(start, bench)
    except Conflict as conflict:
        if not _is_stale(conflict):
            raise
        log_event("job.taken_over", level=logging.WARNING, job_id=job_id)
        return
    seconds = round(time.monotonic() - began, 3)
    log_event(f"task.{state}", task_id=start.task_id, job_id=job_id, duration_seconds=seconds)


def recipe_digest(
    archives: tuple[Blob, ...], label_kind: str, space_id: str, precision: str, settings: Settings
) -> str:
    """SHA-256 of all that decides an embedding's numbers: who asks for the same may share it."""
    recipe = {
        "archives": [archive.sha256 for archive in archives],
        "label_kind": label_kind,
        "space_id": space_id,
        "estimator": settings.estimator,
        "precision": precision,
        "draws": settings.draws,
        "tolerance": settings.tolerance,
        "seed": settings.seed,
    }
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()


def _bring_to_end(start: Start, bench: Workbench) -> EndState:
    try:
        _embed(start, bench)
    except HandBack:
        with bench.database.session() as session:
            jobs.release_job(session, start.job_id, start.token, counted=False)
        log_event("job.handed_back", job_id=start.job_id)
        raise
    except Exception as error:
        if _is_stale(error):
            raise
        if _may_pass(error) and start.attempt < bench.settings.max_job_attempts:
            _try_again(start, bench)
            raise
        state, problem = _verdict(error)
        if state == "failed":
            log_event("job.failed", level=logging.ERROR, exc_info=True, job_id=start.job_id)
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


def _embed(start: Start, bench: Workbench) -> None:
    settings = bench.settings
    probe = bench.probe(start.probe)  # first: what it takes to load is no part of any phase
    progress = Progress(
        bench.database,
        start,
        interval_seconds=settings.progress_interval_seconds,
        stopping=bench.stopping,
    )
    sent = start.archives or (_fetch(start, bench, progress),)
    recipe = recipe_digest(sent, start.label_kind, probe.space_id, probe.precision, settings)
    if _share(start, recipe, bench):
        return

    with ExitStack() as files:
        images, report = read_labelled_images(
            [files.enter_context(bench.blobs.open(archive.sha256)) for archive in sent],
            size=probe.card.input_size,
            label_kind=cast("AskedLabelKind", start.label_kind),
            limits=archive_limits(settings),
            max_image_pixels=settings.max_image_pixels,
            decoders=settings.threads or None,
            on_progress=lambda done, total: progress("intake", done, total),
        )
    embedding = embed_images(
        images,
        probe,
        estimator=settings.estimator,
        draws=settings.draws,
        tolerance=settings.tolerance,
        seed=settings.seed,
        memory_mib=settings.embedding_memory_mib,
        on_progress=lambda step: progress(step.phase, step.done, step.total),
    )
    intake = Intake(
        label_kind=images.label_kind,
        n_images=len(images.labels),
        n_classes=len(images.classes),
        summary=report.summary(),
        files=report.files,
    )
    with bench.database.session() as session:
        # The fence first: a worker that lost the job leaves no row behind.
        jobs.hold(session, start.job_id, start.token)
        row = embeddings.add(session, start.tenant, recipe, embedding)
        jobs.finish_job(
            session, start.job_id, start.token, "succeeded", intake=intake, embedding=row
        )


def _share(start: Start, recipe: str, bench: Workbench) -> bool:
    """Ends the job with the embedding of an earlier task of the same bytes, if there is one."""
    with bench.database.session() as session:
        row = embeddings.find(session, start.tenant, recipe)
        intake = None if row is None else of_embedding(session, row.seq)
        if row is None or (intake is None and start.kind != REINDEX):  # a reindex has its task's
            return False
        jobs.finish_job(
            session, start.job_id, start.token, "succeeded", intake=intake, embedding=row
        )
    return True


def _fetch(start: Start, bench: Workbench, progress: Progress) -> Blob:
    archive = fetch_source(
        start.source or "",
        prefixes=bench.settings.source_prefixes,
        blobs=bench.blobs,
        max_bytes=bench.settings.max_upload_bytes,
        on_bytes=lambda done, total: progress("fetch", done, total),
    )
    with bench.database.session() as session:
        archives.require_kept(session, bench.blobs, archive.sha256)
        tasks.attach_archive(session, start.job_id, start.token, archive)
    return archive


def _try_again(start: Start, bench: Workbench) -> None:
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


def _may_pass(error: Exception) -> bool:
    """Whether it is the database's or the disk's trouble, and may be over in a while."""
    return isinstance(error, OperationalError | OSError) and not _is_disk_full(error)


def _is_disk_full(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


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
        case OSError() if _is_disk_full(error):
            told = Unavailable(
                "no-space",
                "The worker's disk is full.",
                "Upload the set again once the operator has made room.",
            )
        case _:
            told = Task2VecError(
                "internal",
                "The worker met an error that is not the set's fault.",
                "Upload the set again; if that fails too, tell the operator the job's id.",
            )
    return "failed", told.problem()


def _is_stale(error: Exception) -> bool:
    return isinstance(error, Conflict) and error.code == "stale-token"
