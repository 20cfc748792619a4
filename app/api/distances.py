"""All distances between some tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, cast

import numpy as np
from fastapi import APIRouter, Request, Response
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.api import formats
from app.api.auth import Tenant
from app.api.bodies import describe_json_body, json_body
from app.api.neighbours import TableFormat
from app.api.problems import problems
from app.api.repeats import Post
from app.api.resources import Reached
from app.api.schemas import DistancesAnswer, DistancesQuery
from app.api.slots import Slots
from app.api.tasks import present_embedding
from app.embedding.distance import METRICS, default_metric, pairwise
from app.embedding.metric_names import MetricName
from app.embedding.parts import Population
from app.embedding.vector import require_one_space
from app.errors import NotFound
from app.store import embeddings, reference
from app.store.tables import Task
from app.store.tasks import readable_by

router = APIRouter(tags=["neighbours"])


# A thousand tasks take a core for a while and some 100 MB.
_computing = Slots(2, "distances-busy", "Other matrices of distances are being computed.")


@dataclass(frozen=True, slots=True)
class Compared:
    """What is read of the tasks: `rows`, one for each embedding, however many share it."""

    metric: MetricName
    rows: embeddings.Matrix
    row_of_task: list[int]
    space_id: str
    epsilon: float
    trivial: float | None
    population: Population | None

    def distances(self) -> list[list[float]]:
        """Row: source task, column: target task, in the order asked."""
        found = pairwise(
            self.rows,
            self.metric,
            epsilon=self.epsilon,
            trivial=self.trivial,
            population=self.population,
        )
        told: list[list[float]] = found[np.ix_(self.row_of_task, self.row_of_task)].tolist()
        return told


@router.post(
    "/distances",
    response_model=DistancesAnswer,
    responses={200: formats.also("csv"), **problems(404, 409, 413, 415, 429)},
    openapi_extra=describe_json_body(DistancesQuery),
)
def post_distances(
    request: Request,
    reached: Reached,
    asked: Annotated[DistancesQuery, json_body(DistancesQuery)],
    tenant: Tenant,
    post: Post,
    wanted: TableFormat = None,
) -> Response:
    post.claim(reached, asked.model_dump_json())
    kind = formats.choose(request, wanted, ("json", "csv"))
    with _computing.one():
        with reached.database.session(read_only=True) as session:
            compared = read(session, tenant, asked)
        rows = compared.distances()
        if kind == "csv":
            table = formats.csv_response(
                ["task", *asked.tasks],
                ([task, *row] for task, row in zip(asked.tasks, rows, strict=True)),
            )
            table.headers["Task2Vec-Metric"] = compared.metric  # a matrix has no cell for it
            return table
        answer = DistancesAnswer(
            metric=compared.metric,
            symmetric=METRICS[compared.metric].symmetric,
            space_id=compared.space_id,
            tasks=asked.tasks,
            distances=rows,
        )
        # Written here: the framework would write a million numbers on the event loop.
        return Response(answer.model_dump_json(), media_type=formats.MEDIA_TYPES["json"])


def read(session: Session, tenant: str, asked: DistancesQuery) -> Compared:
    tasks = _tasks(session, tenant, asked.tasks)
    seqs = [present_embedding(task) for task in tasks]
    space_id = require_one_space([task.embedding.space_id for task in tasks if task.embedding])
    population = reference.population(session, space_id)
    metric = asked.metric or cast("MetricName", default_metric(population))
    row_of_seq = {seq: row for row, seq in enumerate(dict.fromkeys(seqs))}
    return Compared(
        metric,
        embeddings.matrix(session, list(row_of_seq), METRICS[metric].compares),
        [row_of_seq[seq] for seq in seqs],
        space_id,
        embeddings.get_space(session, space_id).epsilon,
        reference.trivial(session, space_id),
        population,
    )


def _tasks(session: Session, tenant: str, ids: list[str]) -> list[Task]:
    """In the order asked; NotFound names every id that is nothing here."""
    asked = select(Task).where(Task.id.in_(set(ids)), readable_by(tenant))
    found = {task.id: task for task in session.scalars(asked)}
    unknown = [task_id for task_id in dict.fromkeys(ids) if task_id not in found]
    if unknown:
        raise NotFound(
            "unknown-task",
            f"There are no tasks {', '.join(map(repr, unknown[:10]))}.",
            "Take the ids from the list of tasks.",
            unknown=unknown,
        )
    return [found[task_id] for task_id in ids]
