"""What candidates' features tell of a task: asked for with a job, kept once for each candidate."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.catalogue import CandidateCard
from app.cost.evidence import SCORES
from app.cost.outcome_table import SCORE_PREFIX
from app.store import jobs
from app.store.jobs import ENDED
from app.store.session import hold
from app.store.tables import CandidateScore, Job, Task
from app.store.turns import SCORE


def ask(session: Session, task: Task, candidates: Iterable[CandidateCard]) -> Job | None:
    """A job for those that are not scored on the task's images yet; None where all of them are, or
    soon will be."""
    hold(session, f"scores of {task.id}")  # two at a time would both add the first row
    archives = jobs.embedded_archives(session, task)
    there = {row.candidate: row for row in of_task(session, task)}
    wanted: list[CandidateScore] = []
    for card in candidates:
        body = card.model_dump(mode="json")
        row = there.get(card.name)
        if row is None:
            row = CandidateScore(task=task, candidate=card.name)
        elif row.archives == archives and row.card == body and not _is_void(row):
            continue
        row.archives, row.card, row.problem = archives, body, None
        row.n_images = row.scores = None
        wanted.append(row)
    if not wanted:
        return None
    job = jobs.enqueue(session, task, SCORE)
    for row in wanted:
        row.job = job
    session.add_all(wanted)
    session.flush()
    return job


def _is_void(row: CandidateScore) -> bool:
    """Whether nobody has told it, and nobody is going to."""
    return row.scores is None and row.job.state in ENDED


def of_task(session: Session, task: Task) -> list[CandidateScore]:
    """Of every candidate that was asked about, by name."""
    query = select(CandidateScore).where(CandidateScore.task_seq == task.seq)
    return list(session.scalars(query.order_by(CandidateScore.candidate)))


def of_job(session: Session, job_id: str) -> list[CandidateScore]:
    """Those that the job has still to tell."""
    query = select(CandidateScore).join(Job).where(Job.id == job_id).order_by(CandidateScore.seq)
    return [row for row in session.scalars(query) if row.scores is None and row.problem is None]


def tell(
    session: Session,
    job_id: str,
    token: int,
    seq: int,
    *,
    n_images: int | None = None,
    scores: Mapping[str, float] | None = None,
    problem: Mapping[str, Any] | None = None,
) -> None:
    """What a candidate's features tell, or why they cannot be had; nothing where it was asked for
    anew since, or is gone."""
    job = jobs.hold(session, job_id, token)
    job.attempts = 1  # a worker that comes so far is not killed by it
    row = session.get(CandidateScore, seq, with_for_update=True)
    if row is None or row.job_seq != job.seq:
        return
    row.n_images = n_images
    row.scores = None if scores is None else dict(scores)
    row.problem = None if problem is None else dict(problem)


def learnt(
    session: Session, tenant: str, tasks: Collection[str]
) -> dict[str, dict[str, dict[str, float]]]:
    """By task and candidate, those that the estimator learns from, under its names; of fewer images
    than the task has now where it was not asked again."""
    query = (
        select(Task.id, CandidateScore.candidate, CandidateScore.scores)
        .join(CandidateScore.task)
        .where(Task.tenant == tenant, Task.id.in_(tasks))
    )
    found: dict[str, dict[str, dict[str, float]]] = {}
    for task, candidate, scores in session.execute(query):
        if scores is None:
            continue
        told = {f"{SCORE_PREFIX}{name}": score for name, score in scores.items()}
        known = {name: told[name] for name in SCORES if name in told}
        found.setdefault(task, {})[candidate] = known
    return found
