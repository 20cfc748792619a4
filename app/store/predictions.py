"""Images sent to the model of a run: asked about, answered, and forgotten a while later."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import accumulate, islice
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session, joinedload, undefer

from app.errors import NotFound
from app.store import cursors, jobs
from app.store.blobs import Blob
from app.store.jobs import PREDICT
from app.store.tables import Finetune, Job, Prediction

PAGE_LISTED = 50_000
"""Probabilities of one page."""

Listed = list[tuple[int, float]]
"""Classes by their number, each with its probability, the most probable first."""


@dataclass(frozen=True, slots=True)
class Page:
    """By name, what is told of images, and why other files are none; and where it goes on."""

    images: list[tuple[str, Listed]] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    next_cursor: str | None = None


def create(
    session: Session, run: Finetune, images: Blob, name: str, *, k: int, threshold: float
) -> Prediction:
    """With its job and the job's outbox row, all in the caller's commit."""
    row = Prediction(
        tenant=run.tenant,
        finetune=run,
        job=jobs.enqueue(session, run.task, PREDICT, "high"),
        name=name,
        sha256=images.sha256,
        k=k,
        threshold=threshold,
    )
    session.add(row)
    session.flush()
    return row


def get(session: Session, tenant: str, prediction_id: str) -> Prediction:
    """With its result."""
    row = session.scalar(
        select(Prediction)
        .where(Prediction.id == prediction_id, Prediction.tenant == tenant)
        .options(undefer(Prediction.result))
    )
    if row is None:
        raise NotFound(
            "unknown-prediction",
            f"There is no prediction {prediction_id!r}.",
            "Take the id from the answer that accepted the images; answers are kept for a day.",
        )
    return row


def of_job(session: Session, job_id: str) -> Prediction:
    """What a job is to answer, and the run whose model does."""
    query = select(Prediction).join(Prediction.job).where(Job.id == job_id)
    return session.scalars(query.options(joinedload(Prediction.finetune))).one()


def images_of(session: Session, job_id: str) -> list[str]:
    """Digests of what a job is to classify: none where it does something else, or is gone."""
    query = select(Prediction.sha256).join(Prediction.job).where(Job.id == job_id)
    return list(session.scalars(query))


def finish(session: Session, job_id: str, token: int, result: dict[str, Any]) -> None:
    jobs.hold(session, job_id, token)  # the fence first: who lost the job leaves no answer behind
    of_job(session, job_id).result = result
    jobs.finish_job(session, job_id, token, "succeeded")


def packed(rows: Sequence[Listed]) -> dict[str, Any]:
    """Rows as a result keeps them, end to end: a list each would take long to read back."""
    return {
        "numbers": [number for row in rows for number, _ in row],
        "probabilities": [probability for row in rows for _, probability in row],
        "starts": [0, *accumulate(map(len, rows))],
    }


def images(result: dict[str, Any], start: int = 0) -> Iterator[tuple[str, Listed]]:
    """By name, in its order, what is told of each from that one on."""
    numbers, probabilities, starts = (
        result[name] for name in ("numbers", "probabilities", "starts")
    )
    for name, row in islice(result["images"].items(), start, None):
        of_row = slice(starts[row], starts[row + 1])
        yield name, list(zip(numbers[of_row], probabilities[of_row], strict=True))


def page(row: Prediction, *, limit: int, cursor: str | None) -> Page:
    """Of a prediction with its result: at most `limit` files, images before the others; of images
    no more than list PAGE_LISTED probabilities, but one."""
    here = f"prediction {row.id}"
    position = 0 if cursor is None else cursors.decode(here, cursor)
    if row.result is None:
        return Page()
    n_images, refused = len(row.result["images"]), row.result["refused"]
    found: list[tuple[str, Listed]] = []
    n_listed = 0
    for name, listed in islice(images(row.result, position), limit):
        n_listed += len(listed)
        if found and n_listed > PAGE_LISTED:
            break
        found.append((name, listed))
    position += len(found)
    left_out: list[tuple[str, str]] = []
    if position >= n_images:
        start = position - n_images
        left_out = list(islice(refused.items(), start, start + limit - len(found)))
        position += len(left_out)
    over = position >= n_images + len(refused)
    return Page(found, left_out, None if over else cursors.encode(here, position))


def expire(session: Session, before: datetime) -> None:
    """Forgets, with their jobs, those that ended earlier than that."""
    session.execute(delete(Job).where(Job.kind == PREDICT, Job.finished_at < before))
