"""What candidates' features tell of a task: asked for, and read."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Response
from sqlalchemy.orm import Session

from app.api.auth import Tenant
from app.api.bodies import describe_json_body, json_body
from app.api.callbacks import ask_callback
from app.api.problems import problems
from app.api.quotas import require_room
from app.api.repeats import Post
from app.api.resources import Reached, Reading
from app.api.schemas import ScoresAccepted, ScoresAnswer, ScoresAsked, ScoresRow
from app.api.tasks import TaskIdPath, task_with_images
from app.api.weights import are_at_hand, require_unseen, require_weights, weights_here
from app.catalogue import CandidateCard
from app.store import cards, finetunes, tasks
from app.store import scores as store
from app.store.idempotency import Answer
from app.store.jobs import ENDED
from app.store.tables import CandidateScore, Task

router = APIRouter(tags=["estimates"])


@router.post(
    "/tasks/{task_id}/scores",
    status_code=202,
    response_model=ScoresAccepted,
    responses=problems(404, 409, 413, 415),
    openapi_extra=describe_json_body(ScoresAsked),
)
def post_scores(
    task_id: TaskIdPath,
    asked: Annotated[ScoresAsked, json_body(ScoresAsked)],
    reached: Reached,
    tenant: Tenant,
    post: Post,
) -> Response:
    """Candidates that were scored on these images are not looked at again."""

    def accept(session: Session) -> Answer:
        task = task_with_images(session, tenant, task_id)
        require_room(reached, session, tenant)
        chosen = _candidates(session, tenant, task, asked)
        job = store.ask(session, task, chosen)
        ask_callback(reached, session, job, asked.callback_url)
        body = ScoresAccepted(
            job_id=job.id if job else None, candidates=[card.name for card in chosen]
        )
        return Answer(202, body.model_dump(), f"/v1/tasks/{task_id}/scores")

    with reached.database.session() as session:
        return post.once(session, lambda: accept(session), asked.model_dump_json())


def _candidates(
    session: Session, tenant: str, task: Task, asked: ScoresAsked
) -> list[CandidateCard]:
    if asked.candidates is None:
        is_here = weights_here(session)
        return [
            card
            for card in cards.list_cards(session, tenant, CandidateCard)
            if are_at_hand(session, card, is_here)
            and task.id not in finetunes.tasks_seen(session, tenant, card)
        ]
    names = dict.fromkeys(asked.candidates)
    found = [cards.get_card(session, tenant, CandidateCard, name) for name in names]
    for card in found:
        require_weights(session, card)
        require_unseen(session, tenant, card, task)
    return found


@router.get("/tasks/{task_id}/scores", response_model=ScoresAnswer, responses=problems(404))
def get_scores(task_id: TaskIdPath, tenant: Tenant, session: Reading) -> ScoresAnswer:
    """Of every candidate that was asked about, by name."""
    task = tasks.get_own_task(session, tenant, task_id)
    return ScoresAnswer(task=task.id, scores=[_row(row) for row in store.of_task(session, task)])


def _row(row: CandidateScore) -> ScoresRow:
    ended = row.job.state in ENDED
    problem = row.problem or (row.job.problem if row.scores is None else None)
    told = "scored" if row.scores is not None else "failed" if problem else "pending"
    if ended and told == "pending":
        told = "cancelled"
    return ScoresRow(
        candidate=row.candidate,
        state=told,
        n_images=row.n_images,
        scores=row.scores,
        problem=problem,
        job_id=row.job.id,
    )
