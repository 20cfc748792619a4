"""What goes once its time is over: engine records, idempotency keys, log-ins, the audit log,
expired tasks, answers about images, lost blobs, abandoned uploads, embeddings of a space that was
left, whatever settings do not keep; and what is left of what was deleted.
"""

from __future__ import annotations

import shutil
import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import select

from app.settings import Settings
from app.store import (
    archives,
    audit,
    embeddings,
    finetunes,
    idempotency,
    jobs,
    logins,
    pgvector,
    predictions,
    tasks,
    uploads,
)
from app.store.blobs import UPLOAD_SECONDS, BlobStore
from app.store.indexes import FaissIndexes
from app.store.session import Database
from app.store.tables import Task, now
from app.telemetry import log_event

if TYPE_CHECKING:
    from app.jobs.engine import Engine

ENGINE_RETENTION = timedelta(days=1)
SWEEP_SECONDS = 2.0
EMBEDDINGS_AT_ONCE = 20  # some hundred pages of the database each: nobody waits long for the lock
GRAVE_RETENTION = timedelta(days=30)
PREDICTION_RETENTION = timedelta(days=1)


def housekeep(settings: Settings, database: Database, blobs: BlobStore, engine: Engine) -> None:
    engine.forget_ended(now() - ENGINE_RETENTION)
    with database.session() as session:
        keys = idempotency.expire(session, settings.idempotency_retention_hours)
        audit.expire(session, now() - timedelta(days=settings.audit_retention_days))
        embeddings.forget_graves(session, now() - GRAVE_RETENTION)
        predictions.expire(session, now() - PREDICTION_RETENTION)
        logins.expire(session)
        uploads.expire(session, now() - timedelta(seconds=UPLOAD_SECONDS))
        pgvector.sweep(session, searched=settings.vector_index != "faiss")
        expired = session.scalars(select(Task).where(Task.expires_at < now())).all()
        for task in expired:
            tasks.delete_task(session, task)
    unkept = []  # each in a unit of work of its own: they lock rows in different orders
    if settings.job_retention_days is not None:
        with database.session() as session:
            jobs.expire(session, _before(settings.job_retention_days))
    if settings.image_retention_days is not None:
        with database.session() as session:
            unkept += tasks.forget_images(session, _before(settings.image_retention_days))
    if settings.model_retention_days is not None:
        with database.session() as session:
            unkept += finetunes.forget_models(session, _before(settings.model_retention_days))
    with database.session(read_only=True) as session:
        orphans = archives.orphans(session, blobs, UPLOAD_SECONDS)
    files = blobs.sweep(UPLOAD_SECONDS)
    for sha256 in (*unkept, *orphans):  # one by one: nobody waits long for the write lock
        with database.session() as session:
            files += archives.delete_unneeded(session, blobs, [sha256])
    folders = _sweep_folders(settings, database)
    with database.session(read_only=True) as session:
        FaissIndexes(settings.index_dir).follow_all(session)
    database.cut_log()
    log_event("housekeeping.done", keys=keys, tasks=len(expired), files=files, finetunes=folders)


def _sweep_folders(settings: Settings, database: Database) -> int:
    """Of runs that do not go on; how many."""
    directories = list(settings.finetune_dir.glob("*"))  # before: a run's row is there first
    with database.session(read_only=True) as session:
        at_work = finetunes.unfinished(session)
    folders = 0
    for directory in directories:
        if directory.name not in at_work:
            shutil.rmtree(directory, ignore_errors=True)
            folders += 1
    return folders


def _before(days: float) -> datetime:
    return now() - timedelta(days=days)


def sweep_embeddings(database: Database) -> None:
    """Deletes those that no task has any more; what is left of very many goes the next time."""
    give_up_at = time.monotonic() + SWEEP_SECONDS
    while time.monotonic() < give_up_at:
        with database.session() as session:
            if not embeddings.sweep(session, EMBEDDINGS_AT_ONCE):
                return


def reconcile(database: Database, engine: Engine) -> None:
    """Hands the engine every job begun and unfinished; it knows most of them and ignores those.

    What is left are jobs to be tried again, those whose end could not be written down, and all of
    them where the engine's file was lost (a backup holds the database, not it).
    """
    with database.session(read_only=True) as session:
        unfinished = jobs.unfinished(session)
    for job_id, kind in unfinished:
        engine.enqueue(job_id, kind)
