"""Whether rows of the database say the same of tasks, jobs, runs, maps and estimators.

They change together, in one commit: what does not fit here was never just on its way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Text,
    and_,
    cast,
    delete,
    exists,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.orm import Session

from app.catalogue import RUN_SOURCE, CandidateCard
from app.store import atlas, cards, embeddings, estimators, workers
from app.store.findings import REPAIR, Finding
from app.store.jobs import ASIDE, ENDED
from app.store.session import portions
from app.store.spaces import REINDEX, UNFINISHED
from app.store.tables import (
    PUBLIC,
    Atlas,
    AtlasPoint,
    CatalogueCard,
    Embedding,
    EstimatorVersion,
    Finetune,
    Job,
    Outbox,
    Prediction,
    Task,
    now,
)

UNSENT_SECONDS = 600.0
"""A worker that is up deletes what is left over within a minute."""
_STUCK = {
    "type": "/problems/task-stuck",
    "title": "Internal error",
    "status": 500,
    "detail": "The task waited for a job that was not there.",
    "remedy": "Send it again.",
}


def of_rows(session: Session, checked: Counter[str], *, repair: bool) -> Iterator[Finding]:
    yield from _of_outbox(session, checked, repair=repair)
    yield from _of_tasks(session, checked, repair=repair)
    yield from _of_unused(session, repair=repair)
    yield from _of_predictions(session, checked)
    yield from _of_candidates(session, repair=repair)
    yield from _of_atlases(session, checked, repair=repair)
    yield from _of_estimators(session, checked, repair=repair)


def _of_outbox(session: Session, checked: Counter[str], *, repair: bool) -> Iterator[Finding]:
    checked["jobs"] += session.scalar(select(func.count()).select_from(Job)) or 0
    awaited = exists().where(Job.id == Outbox.job_id, Job.state.in_(UNFINISHED))
    void = session.scalars(select(Outbox.seq).where(~awaited)).all()
    if void:
        if repair:
            for some in portions(void):
                session.execute(delete(Outbox).where(Outbox.seq.in_(some)))
        yield Finding(
            "job",
            f"{len(void)} jobs are to be handed to a worker that are gone, or have ended.",
            f"{REPAIR}: they are struck off.",
            mended=repair,
        )
    long_ago = Outbox.created_at < now() - timedelta(seconds=UNSENT_SECONDS)
    unsent = session.scalar(select(func.count()).select_from(Outbox).where(long_ago, awaited))
    if unsent and not workers.alive(session, workers.FRESH_SECONDS):
        yield Finding(
            "job",
            f"{unsent} jobs have waited for more than ten minutes, and no worker is up.",
            "Start one: `task2vec worker`.",
        )


def _of_tasks(session: Session, checked: Counter[str], *, repair: bool) -> Iterator[Finding]:
    own = Task.tenant != PUBLIC
    kept = select(func.count()).select_from(Task).where(own, Task.expires_at.is_(None))
    checked["tasks"] += session.scalar(kept) or 0
    embedding = and_(
        Job.task_seq == Task.seq, Job.kind.not_in((REINDEX, *ASIDE)), Job.state.in_(UNFINISHED)
    )
    waits = Task.status.in_(("queued", "embedding"))
    has_embedding = Task.embedding_seq.is_not(None)
    without_job = (waits, ~exists().where(embedding))
    for which, values in (
        (has_embedding, {"status": "ready"}),
        (~has_embedding, {"status": "failed", "problem": _STUCK}),
    ):
        yield from _set_right(
            session,
            "{} wait for a job that is not there",
            (*without_job, which),
            values,
            repair=repair,
        )
    yield from _set_right(
        session,
        "{} are said to have ended, and a job is still to embed them",
        (~waits, exists().where(embedding)),
        {"status": "queued"},
        repair=repair,
    )
    yield from _set_right(
        session,
        "{} are said to be ready, and have no embedding",
        (Task.status == "ready", ~has_embedding),
        {"status": "failed", "problem": _STUCK},
        repair=repair,
    )
    moving = exists().where(
        Job.task_seq == Task.seq, Job.kind == REINDEX, Job.state.in_((*UNFINISHED, "succeeded"))
    )
    yield from _set_right(
        session,
        "{} have an embedding of a space that they do not move to",
        (Task.next_embedding_seq.is_not(None), ~moving),
        {"next_embedding_seq": None},
        repair=repair,
    )
    ended = (Job.state.in_(ENDED), Job.finished_at.is_(None))
    timeless = session.scalars(select(Job.seq).where(*ended)).all()
    if timeless:
        if repair:
            for some in portions(timeless):
                at_last_change = {"finished_at": Job.updated_at}
                session.execute(update(Job).where(Job.seq.in_(some)).values(at_last_change))
        yield Finding("job", f"{len(timeless)} jobs ended at no time.", f"{REPAIR}.", mended=repair)


def _set_right(
    session: Session,
    what: str,
    which: tuple[ColumnElement[bool], ...],
    values: Mapping[str, Any],
    *,
    repair: bool,
) -> Iterator[Finding]:
    found = session.execute(select(Task.seq, Task.id).where(Task.tenant != PUBLIC, *which)).all()
    if not found:
        return
    if repair:
        seqs = [seq for seq, _ in found]
        for some in portions(seqs):
            session.execute(update(Task).where(Task.seq.in_(some)).values(dict(values)))
    few = ", ".join(task_id for _, task_id in found[:3])
    yield Finding(
        "task",
        f"{what.format(f'{len(found)} tasks')}: {few}{' ...' if len(found) > 3 else ''}.",
        f"{REPAIR}: their state is set right.",
        mended=repair,
    )


def _of_unused(session: Session, *, repair: bool) -> Iterator[Finding]:
    """A worker deletes them within a minute."""
    long_ago = Embedding.created_at < now() - timedelta(seconds=UNSENT_SECONDS)
    unused = session.scalars(select(Embedding.seq).where(*embeddings.UNUSED, long_ago)).all()
    if unused:
        if repair:
            embeddings.drop_unused(session, *unused)
        yield Finding(
            "embedding",
            f"{len(unused)} embeddings belong to no task.",
            f"{REPAIR}, or start a worker: they are deleted.",
            mended=repair,
        )


def _of_predictions(session: Session, checked: Counter[str]) -> Iterator[Finding]:
    checked["predictions"] += session.scalar(select(func.count()).select_from(Prediction)) or 0
    nothing = or_(Prediction.result.is_(None), cast(Prediction.result, Text) == "null")
    found = session.scalars(
        select(Prediction.id).join(Job).where(Job.state == "succeeded", nothing)
    ).all()
    for prediction_id in found:
        yield Finding(
            "prediction",
            f"The prediction {prediction_id} has succeeded without an answer.",
            "Send its images again; this one goes within a day.",
        )


def _of_candidates(session: Session, *, repair: bool) -> Iterator[Finding]:
    """Those that are models of runs."""
    runs = set(session.scalars(select(Finetune.id)))
    kind = CatalogueCard.kind == cards.kind_of(CandidateCard)
    for card in session.scalars(select(CatalogueCard).where(CatalogueCard.tenant != PUBLIC, kind)):
        source = card.body["weights"]["source"]
        if source.startswith(RUN_SOURCE) and source.removeprefix(RUN_SOURCE) not in runs:
            if repair:
                session.delete(card)
            yield Finding(
                "model",
                f"The candidate {card.name} of {card.tenant} is the model of a run that is gone.",
                f"{REPAIR}, or DELETE /v1/candidates/{card.name}.",
                mended=repair,
            )


def _of_atlases(session: Session, checked: Counter[str], *, repair: bool) -> Iterator[Finding]:
    checked["atlases"] += session.scalar(select(func.count()).select_from(Atlas)) or 0
    placed = (
        select(func.count())
        .where(AtlasPoint.atlas_seq == Atlas.seq)
        .correlate(Atlas)
        .scalar_subquery()
    )
    foreign = (
        exists()
        .where(AtlasPoint.atlas_seq == Atlas.seq, AtlasPoint.task_seq == Task.seq)
        .where(Task.tenant.not_in((Atlas.tenant, PUBLIC)))
    )
    # A task that was deleted takes its point along, before the map is drawn again.
    wrong = set(session.scalars(select(Atlas.seq).where(or_(placed > Atlas.n_tasks, foreign))))
    wrong |= set(atlas.empty(session))
    if wrong:
        if repair:
            atlas.drop(session, sorted(wrong))
        yield Finding(
            "atlas",
            f"{len(wrong)} atlases show what their tenant has not.",
            f"{REPAIR}: they are drawn anew.",
            mended=repair,
        )


def _of_estimators(session: Session, checked: Counter[str], *, repair: bool) -> Iterator[Finding]:
    for tenant in session.scalars(select(EstimatorVersion.tenant).distinct()).all():
        checked["estimators"] += 1
        serving = estimators.latest(session, tenant, published=True, with_evidence=True)
        if serving is None or _can_serve(serving):
            continue
        if repair:
            estimators.withdraw(session, tenant, "What it was fitted to could not be read.")
        yield Finding(
            "estimator",
            f"What version {serving.version} of {tenant}'s estimator was fitted to cannot be read.",
            f"{REPAIR}: a worker fits it anew to the outcomes.",
            mended=repair,
        )


def _can_serve(version: EstimatorVersion) -> bool:
    try:
        estimators.evidence_of(version)
        estimators.calibration_from(version.calibration)
    except Exception:  # whatever a damaged file makes of its reader
        return False
    return True
