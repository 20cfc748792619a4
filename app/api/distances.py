"""All distances between some tasks."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request, Response
from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from app.api import formats
from app.api.auth import Tenant
from app.api.neighbours import TableFormat
from app.api.problems import problems
from app.api.repeats import Post
from app.api.resources import Reached, Reading
from app.api.schemas import DistancesAnswer, DistancesQuery
from app.api.tasks import ready_embedding
from app.api.uploads import require_json
from app.embedding.distance import METRICS, pairwise
from app.embedding.vector import require_one_space
from app.errors import NotFound
from app.store import embeddings, reference
from app.store.tables import PUBLIC, Task

router = APIRouter(tags=["neighbours"])


@router.post(
    "/distances",
    response_model=DistancesAnswer,
    responses={200: formats.also("csv"), **problems(404, 409, 413, 415)},
    dependencies=[Depends(require_json)],
)
def post_distances(
    request: Request,
    reached: Reached,
    asked: DistancesQuery,
    tenant: Tenant,
    post: Post,
    session: Reading,
    wanted: TableFormat = None,
) -> DistancesAnswer | Response:
    post.claim(reached, asked.model_dump_json())
    tasks = _tasks(session, tenant, asked.tasks)
    seqs = [ready_embedding(task) for task in tasks]
    space_id = require_one_space([task.embedding.space_id for task in tasks if task.embedding])
    metric = METRICS[asked.metric]
    distances = pairwise(
        embeddings.matrix(session, seqs, metric.part),
        asked.metric,
        epsilon=embeddings.get_space(session, space_id).epsilon,
        trivial=reference.trivial(session, space_id),
    )
    rows = distances.tolist()
    if formats.choose(request, wanted, ("json", "csv")) == "csv":
        return formats.csv_response(
            ["task", *asked.tasks],
            ([task, *row] for task, row in zip(asked.tasks, rows, strict=True)),
        )
    return DistancesAnswer(
        metric=asked.metric,
        symmetric=metric.symmetric,
        space_id=space_id,
        tasks=asked.tasks,
        distances=rows,
    )


def _tasks(session: Session, tenant: str, ids: list[str]) -> list[Task]:
    """In the order asked; NotFound names every id that is nothing here."""
    readable = or_(Task.tenant == tenant, Task.tenant == PUBLIC)
    found = {
        task.id: task for task in session.scalars(select(Task).where(Task.id.in_(ids), readable))
    }
    unknown = [task_id for task_id in dict.fromkeys(ids) if task_id not in found]
    if unknown:
        raise NotFound(
            "unknown-task",
            f"There are no tasks {', '.join(map(repr, unknown[:10]))}.",
            "Take the ids from the list of tasks.",
            unknown=unknown,
        )
    return [found[task_id] for task_id in ids]
