"""What candidates' features tell of a task: asked for, and read."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Response
from sqlalchemy.orm import Session

from app.api.auth import Tenant
from app.api.bodies import describe_json_body, json_body
from app.api.problems import problems
from app.api.repeats import Post
from app.api.resources import Reached, Reading
from app.api.schemas import ScoresAccepted, ScoresAnswer, ScoresAsked, ScoresRow
from app.api.tasks import TaskIdPath, task_with_images
from app.catalogue import RUN_SOURCE, CandidateCard
from app.store import cards, tasks
from app.store import scores as store
from app.store.idempotency import Answer
from app.store.jobs import ENDED
from app.store.tables import CandidateScore

router = APIRouter(tags=["estimates"])

_AT_HAND = ("package:", "file:", RUN_SOURCE)
"""Where weights come from that nobody has to fetch."""


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
        chosen = _candidates(session, tenant, asked)
        job = store.ask(session, task, chosen)
        body = ScoresAccepted(
            job_id=job.id if job else None, candidates=[card.name for card in chosen]
        )
        return Answer(202, body.model_dump(), f"/v1/tasks/{task_id}/scores")

    with reached.database.session() as session:
        return post.once(session, lambda: accept(session), asked.model_dump_json())


def _candidates(session: Session, tenant: str, asked: ScoresAsked) -> list[CandidateCard]:
    if asked.candidates is not None:
        names = dict.fromkeys(asked.candidates)
        return [cards.get_card(session, tenant, CandidateCard, name) for name in names]
    found = cards.list_cards(session, tenant, CandidateCard)
    return [card for card in found if card.weights.source.startswith(_AT_HAND)]


@router.get("/tasks/{task_id}/scores", response_model=ScoresAnswer, responses=problems(404))
def get_scores(task_id: TaskIdPath, tenant: Tenant, session: Reading) -> ScoresAnswer:
    """Of every candidate that was asked about, by name."""
    task = tasks.get_own_task(session, tenant, task_id)
    return ScoresAnswer(task=task.id, scores=[_row(row) for row in store.of_task(session, task)])


def _row(row: CandidateScore) -> ScoresRow:
    ended = row.job.state in ENDED
    told = "scored" if row.scores is not None else "failed" if row.problem or ended else "pending"
    return ScoresRow(
        candidate=row.candidate,
        state=told,
        n_images=row.n_images,
        scores=row.scores,
        problem=row.problem or (row.job.problem if row.scores is None else None),
        job_id=row.job.id,
    )
