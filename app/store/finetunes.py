"""Fine-tuning runs: asked for with their job, followed epoch by epoch, ended with their outcome."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from app.catalogue import CandidateCard, DeviceCard, RecipeCard
from app.errors import NotFound
from app.store import archives, cards, cursors, jobs, outcomes
from app.store.blobs import Blob
from app.store.outcomes import Run
from app.store.spaces import UNFINISHED
from app.store.tables import Finetune, FinetuneFile, Job, Task
from app.store.turns import FINETUNE

CHECKPOINT = "checkpoint"
"""Name of the file that a run goes on from; those that it leaves are called as in FILES."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a run is asked for beside its cards."""

    seed: int = 0
    target: float | None = None
    patience: int | None = None
    budget_seconds: float | None = None
    trace_every: int = 0


def create(
    session: Session,
    task: Task,
    candidate: CandidateCard,
    recipe: RecipeCard,
    device: DeviceCard,
    asked: Asked,
    *,
    warnings: list[str],
    forecast: dict[str, Any] | None,
) -> Finetune:
    """The run, its job and the job's outbox row, all in the caller's commit."""
    job = jobs.enqueue(session, task, FINETUNE)
    row = Finetune(
        tenant=task.tenant,
        task=task,
        job=job,
        candidate=candidate.model_dump(mode="json"),
        recipe=recipe.model_dump(mode="json"),
        device=device.model_dump(mode="json"),
        archives=jobs.embedded_archives(session, task),
        asked=asdict(asked),
        warnings=warnings,
        forecast=forecast,
        curve=[],
    )
    session.add(row)
    session.flush()
    return row


def get(session: Session, tenant: str, finetune_id: str) -> Finetune:
    row = session.scalar(
        select(Finetune).where(Finetune.id == finetune_id, Finetune.tenant == tenant)
    )
    if row is None:
        raise NotFound(
            "unknown-finetune",
            f"There is no fine-tuning run {finetune_id!r}.",
            "Take the id from the answer that accepted it; runs go with their task.",
        )
    return row


def run_of(session: Session, tenant: str, candidate: CandidateCard) -> Finetune | None:
    """The tenant's run whose model the candidate is; NotFound where that run has gone."""
    run_id = candidate.weights.run_id
    return None if run_id is None else get(session, tenant, run_id)


def tasks_seen(session: Session, tenant: str, candidate: CandidateCard) -> set[str]:
    """Ids of the tasks that it was trained on, and those that it came from, as far as is known."""
    seen = set() if candidate.source_task is None else {candidate.source_task}
    run_id = candidate.weights.run_id
    while run_id is not None:
        row = session.scalar(
            select(Finetune).where(Finetune.id == run_id, Finetune.tenant == tenant)
        )
        if row is None:
            break
        seen.add(row.task.id)
        run_id = CandidateCard.model_validate(row.candidate, strict=False).weights.run_id
    return seen


def of_job(session: Session, job_id: str) -> Finetune:
    """The run that a job is of."""
    return session.scalars(select(Finetune).join(Job).where(Job.id == job_id)).one()


def list_finetunes(
    session: Session,
    tenant: str,
    *,
    limit: int,
    cursor: str | None = None,
    id_prefix: str | None = None,
    task_id: str | None = None,
) -> tuple[list[Finetune], str | None]:
    """Newest first, and the cursor of the next page."""
    query = select(Finetune).where(
        Finetune.tenant == tenant, cursors.begins(Finetune.id, id_prefix)
    )
    if task_id is not None:
        query = query.where(Finetune.task.has(Task.id == task_id))
    return cursors.page(session, Finetune, query, limit=limit, cursor=cursor)


def register(session: Session, tenant: str, finetune_id: str, card: CandidateCard) -> None:
    """The run's model becomes a candidate; NotFound where one of them has gone meanwhile.

    The other half of `cards.require_no_candidate` and `forget_models`: no candidate loses its
    weights with a task, or by their age.
    """
    cards.hold_models(session, tenant)
    row = get(session, tenant, finetune_id)
    session.refresh(row, ["files"])
    if not row.files:
        raise NotFound(
            "model-gone", f"The model of the run {finetune_id!r} is not there.", "Train it again."
        )
    cards.add_card(session, tenant, card)


def unfinished(session: Session) -> set[str]:
    """Ids of the runs that go on."""
    return set(session.scalars(select(Finetune.id).join(Job).where(Job.state.in_(UNFINISHED))))


def files_of(row: Finetune) -> dict[str, Blob]:
    """By name."""
    return {file.name: Blob(file.sha256, file.size_bytes) for file in row.files}


def checkpoint_of(session: Session, job_id: str) -> list[str]:
    """Digest of what a job would go on from, if there is one."""
    query = select(FinetuneFile.sha256).join(Finetune).join(Job).where(Job.id == job_id)
    return list(session.scalars(query.where(FinetuneFile.name == CHECKPOINT)))


def keep(session: Session, row: Finetune, files: Mapping[str, Blob]) -> None:
    """Instead of those that there were."""
    row.files = []
    session.flush()
    row.files = [
        FinetuneFile(name=name, sha256=blob.sha256, size_bytes=blob.size_bytes)
        for name, blob in files.items()
    ]


def forget_models(session: Session, before: datetime) -> list[str]:
    """Of runs that ended earlier, unless their model is a candidate: digests of what they left, for
    `archives.delete_unneeded` after the commit."""
    old = (Job.state == "succeeded", Job.finished_at < before, Finetune.files.any())
    tenants = session.scalars(select(Finetune.tenant).join(Job).where(*old).distinct())
    for tenant in sorted(tenants):  # in one order for all, or two could wait for each other
        cards.hold_models(session, tenant)
    candidates = cards.runs_that_are_candidates(session)
    runs = select(Finetune.seq).join(Job).where(*old, Finetune.id.not_in(candidates))
    gone = delete(FinetuneFile).where(FinetuneFile.finetune_seq.in_(runs))
    digests = session.scalars(gone.returning(FinetuneFile.sha256)).all()
    return archives.unneeded(session, digests)


def tell(
    session: Session,
    job_id: str,
    token: int,
    curve: list[dict[str, Any]],
    checkpoint: Blob | None,
) -> None:
    """The epochs so far, and where to go on if that is new: a worker that comes so far is not
    killed by the run."""
    job, row = jobs.hold(session, job_id, token), of_job(session, job_id)
    row.curve = curve
    if checkpoint is not None:
        job.attempts = 1
        keep(session, row, {CHECKPOINT: checkpoint})


def finish(
    session: Session,
    job_id: str,
    token: int,
    *,
    files: Mapping[str, Blob],
    curve: list[dict[str, Any]],
    result: dict[str, Any],
    run: Run | None,
    forecast: Mapping[str, Any] | None,
) -> None:
    """Ends the job with what the run left in place of its checkpoint; what it gave and took becomes
    an outcome beside its forecast, if there is one to learn from."""
    jobs.hold(session, job_id, token)  # the fence first: who lost the job leaves no row behind
    row = of_job(session, job_id)
    row.curve, row.result = curve, result
    keep(session, row, files)
    if run is not None:
        added = outcomes.add(session, row.tenant, [run], [dict(forecast) if forecast else None])
        row.outcome_id = added.outcomes[0].id
    jobs.finish_job(session, job_id, token, "succeeded")
