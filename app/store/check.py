"""Whether what the service keeps fits together: rows, archives, models, search indexes."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from sqlalchemy import func, select, text
from sqlalchemy.exc import DatabaseError
from sqlalchemy.orm import Session

from app.errors import DifferentSpaces
from app.settings import Settings
from app.store import (
    archives,
    check_engine,
    check_rows,
    embeddings,
    finetunes,
    pgvector,
    points,
    reference,
)
from app.store.blobs import UPLOAD_SECONDS, Blob, BlobStore, digest_of
from app.store.findings import REPAIR, Finding, Report
from app.store.indexes import FaissIndexes, mark_of
from app.store.parts_index import parts_key
from app.store.progress import OnCount, OnProgress, counting
from app.store.space_index import GONE, SpaceIndex
from app.store.spaces import UNFINISHED
from app.store.tables import (
    Archive,
    Embedding,
    EmbeddingArrays,
    Finetune,
    Job,
    Prediction,
    SearchIndex,
    Task,
)

SAMPLE = 200
"""Embeddings of an index that are compared number by number, unless all are."""
_MADE_ANEW = f"{REPAIR}: it is made anew."


def check(
    session: Session,
    blobs: BlobStore,
    settings: Settings,
    *,
    deep: bool,
    repair: bool,
    on_progress: OnProgress = lambda *_: None,
) -> Report:
    """`deep` reads every byte of archives and models, and all numbers of indexes, not a sample.

    With `repair` what can be set right without loss is: for when nothing else runs, and in a unit
    of work that may write.
    A damaged database ends the check: nothing else can be held against it.
    """
    on_progress("looking at the database", 0, 0)
    report = Report(findings=list(_of_database(session)))
    if report.findings:
        return report
    checked, index_dir = report.checked, settings.index_dir
    on_archive = partial(on_progress, "looking at archives")
    report.findings += _of_archives(session, blobs, checked, on_archive, deep=deep)
    on_model = partial(on_progress, "looking at models")
    report.findings += _of_models(session, blobs, checked, on_model, deep=deep)
    report.findings += _of_images(session, blobs)
    on_progress("looking at blobs", 0, 0)
    on_orphan = partial(on_progress, "deleting blobs")
    report.findings += _of_orphans(session, blobs, on_orphan, repair=repair)
    on_progress("looking at embeddings", 0, 0)
    misshapen = list(_of_embeddings(session, checked))
    on_progress("looking at rows", 0, 0)
    report.findings += misshapen
    report.findings += check_rows.of_rows(session, checked, repair=repair)
    report.findings += check_engine.of_engine(session, settings.engine_url, checked, repair=repair)
    if not misshapen:
        how, on_row = (
            {"deep": deep, "repair": repair},
            partial(on_progress, "looking at index rows"),
        )
        report.findings += _of_indexes(session, index_dir, checked, on_row, **how)
        report.findings += _of_tables(session, checked, on_row, **how)
    return report


def _of_database(session: Session) -> Iterator[Finding]:
    if session.get_bind().dialect.name != "sqlite":
        return  # PostgreSQL looks after its own pages
    remedy = "Restore the database from a backup."
    try:
        for (told,) in session.execute(text("PRAGMA quick_check(20)")).all():
            if told != "ok":
                yield Finding("database", f"The database file is damaged: {told}", remedy)
        for table, row, parent, _ in session.execute(text("PRAGMA foreign_key_check")).all():
            detail = f"Row {row} of {table} names a row of {parent} that is not there."
            yield Finding("database", detail, remedy)
    except DatabaseError as error:
        session.rollback()  # no more can be asked of it, not even an orderly end
        yield Finding("database", f"The database file cannot be read: {error.orig}.", remedy)


def _of_archives(
    session: Session, blobs: BlobStore, checked: Counter[str], on_archive: OnCount, *, deep: bool
) -> Iterator[Finding]:
    total = session.scalar(select(func.count()).select_from(Archive)) or 0
    query = select(Archive.sha256, Archive.size_bytes, Task.id).join(Task)
    rows = session.execute(query.order_by(Task.seq))
    for sha256, size_bytes, task_id in counting(rows, total, on_archive):
        checked["archives"] += 1
        remedy = f"Upload the images of task {task_id} again, or restore the data directory."
        if wrong := _wrong_with(blobs, Blob(sha256, size_bytes), deep=deep):
            yield Finding("archive", f"Archive {sha256} {wrong}.", remedy)


def _of_models(
    session: Session, blobs: BlobStore, checked: Counter[str], on_model: OnCount, *, deep: bool
) -> Iterator[Finding]:
    """A checkpoint that is lost only costs the time since the run began."""
    query = select(Finetune).join(Job).where(Job.state == "succeeded")
    runs = session.scalars(query.order_by(Finetune.seq)).all()
    for run in counting(runs, len(runs), on_model):
        checked["models"] += 1
        remedy = f"Train the run {run.id} again, or restore the blob store."
        for name, blob in finetunes.files_of(run).items():
            if wrong := _wrong_with(blobs, blob, deep=deep):
                yield Finding("model", f"{name} of the run {run.id} {wrong}.", remedy)


def _wrong_with(blobs: BlobStore, blob: Blob, *, deep: bool) -> str | None:
    size = blobs.size_bytes(blob.sha256)
    if size is None:
        return "is not there"
    fits = size == blob.size_bytes and not (deep and _is_damaged(blobs, blob.sha256))
    return None if fits else "holds other bytes than it did"


def _of_images(session: Session, blobs: BlobStore) -> Iterator[Finding]:
    awaited = select(Prediction.sha256).join(Job).where(Job.state.in_(UNFINISHED)).distinct()
    for sha256 in session.scalars(awaited.order_by(Prediction.sha256)):
        if blobs.size_bytes(sha256) is None:
            yield Finding(
                "prediction",
                f"Images {sha256} that a model is to classify are not there.",
                "Their job will fail; send them again.",
            )


def _of_orphans(
    session: Session, blobs: BlobStore, on_orphan: OnCount, *, repair: bool
) -> Iterator[Finding]:
    found = archives.orphans(session, blobs, UPLOAD_SECONDS)
    if found:
        if repair:
            archives.delete_unneeded(session, blobs, found, on_orphan)
        yield Finding(
            "archive",
            f"{len(found)} blobs belong to no task or run: {', '.join(found[:3])}"
            f"{' ...' if len(found) > 3 else ''}.",
            f"{REPAIR}, or start a worker: they are deleted.",
            mended=repair,
        )


def _is_damaged(blobs: BlobStore, sha256: str) -> bool:
    with blobs.open(sha256) as stream:
        return digest_of(stream) != sha256


def _of_embeddings(session: Session, checked: Counter[str]) -> Iterator[Finding]:
    lengths = [
        func.coalesce(func.length(column), 0)
        for column in (
            EmbeddingArrays.vector,
            EmbeddingArrays.domain,
            EmbeddingArrays.discriminants,
            EmbeddingArrays.draw_error,
            EmbeddingArrays.sampling_error,
        )
    ]
    found = session.execute(
        select(Embedding.space_id, func.count(), *lengths)
        .outerjoin(Embedding.arrays)
        .group_by(Embedding.space_id, *lengths)
    ).all()
    shapes = Counter(space_id for space_id, *_ in found)
    for space_id, count, *sizes in found:
        checked["embeddings"] += count
        vector, domain, axes, *errors = sizes
        if shapes[space_id] > 1 or {domain, *errors} != {vector} or not vector or axes % 16:
            yield Finding(
                "embedding",
                f"{count} embeddings of space {space_id} have arrays of {sizes} bytes.",
                "Restore the database from a backup, or embed their tasks again.",
            )


def _of_indexes(
    session: Session,
    index_dir: Path,
    checked: Counter[str],
    on_row: OnCount,
    *,
    deep: bool,
    repair: bool,
) -> Iterator[Finding]:
    """Of what is there; an index that was never made is none that does not fit."""
    indexes = FaissIndexes(index_dir)
    for directory in sorted(path for path in index_dir.glob("*/*") if path.is_dir()):
        space_id, key = directory.parent.name, directory.name
        population = reference.population(session, space_id)
        of_parts = population is not None and key == parts_key(population)
        detail = None
        try:
            if of_parts or key == "logs":
                index = indexes.opened(session, space_id, population if of_parts else None)
                checked["index rows"] += len(index.shelf)
                detail = _misfit(session, space_id, index, on_row, deep=deep)
            else:
                detail = "is of a library that is not loaded any more"
        except DifferentSpaces:
            detail = "is of a space without embeddings"
        if detail is not None:
            if repair:
                shutil.rmtree(directory)
            yield Finding(
                "index",
                f"The index {directory} {detail}.",
                _MADE_ANEW,
                mended=repair,
            )


def _of_tables(
    session: Session, checked: Counter[str], on_row: OnCount, *, deep: bool, repair: bool
) -> Iterator[Finding]:
    """Of indexes in the database, which change with its embeddings."""
    if session.get_bind().dialect.name != "postgresql":
        return
    complete = select(SearchIndex).where(SearchIndex.completed_at.is_not(None))
    for index in session.scalars(complete.order_by(SearchIndex.seq)).all():
        held = pgvector.seqs_in(session, index)
        checked["index rows"] += len(held)
        lacking = len(session.execute(points.missing(session, index)).all())
        some = held if deep else np.random.default_rng(0).permutation(held)[:SAMPLE]
        wrong = pgvector.count_wrong(session, index, some, on_row)
        if lacking or wrong:
            detail = (
                f"The index {index.id} of space {index.space_id} lacks {lacking} embeddings and "
                f"holds {wrong} with other numbers."
            )
            if repair:
                points.drop(session, index)
            yield Finding("index", detail, _MADE_ANEW, mended=repair)


def _misfit(
    session: Session, space_id: str, index: SpaceIndex, on_row: OnCount, *, deep: bool
) -> str | None:
    """What the index has that the table has not; what it lacks it takes in at the next search."""
    present = dict(embeddings.added(session, space_id, 0))
    seqs, marks = index.seqs(), index.marks()
    live = np.flatnonzero(seqs != GONE)
    held = seqs[live].tolist()
    if len(set(held)) < len(held):
        return "holds an embedding twice"
    strange = [
        seq
        for seq, mark in zip(held, marks[live].tolist(), strict=True)
        if seq in present and mark_of(present[seq]) != mark
    ]
    known = np.array([row for row, seq in zip(live, held, strict=True) if seq in present])
    if not deep:
        known = np.random.default_rng(0).permutation(known)[:SAMPLE]
    wrong = 0
    for start in range(0, len(known), 128):
        some = known[start : start + 128].astype(np.int64)
        rows = embeddings.matrix(session, seqs[some].tolist(), index.compares)
        wrong += int((~index.fits(some, rows)).sum())
        on_row(start + len(some), len(known))
    if strange or wrong:
        return f"holds {len(strange)} embeddings of another database and {wrong} with other numbers"
    return None
