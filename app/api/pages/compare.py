"""Two tasks side by side: how far apart, by which measure, and in which layers."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, cast

from fastapi import Query, Request, Response
from sqlalchemy.orm import Session

from app.api import distances, tasks
from app.api.auth import Tenant
from app.api.pages.frame import page, page_router
from app.api.resources import Reading
from app.api.schemas import DistancesQuery, TaskId
from app.embedding.distance import METRICS, Compared, Metric
from app.embedding.layers import LayerDifference, by_layer
from app.embedding.metric_names import MetricName
from app.errors import InvalidRequest
from app.store import embeddings, spaces
from app.store import tasks as store
from app.words import counted

router = page_router()


@router.get("/compare")
def get_comparison(
    request: Request,
    tenant: Tenant,
    session: Reading,
    task: Annotated[list[TaskId], Query(max_length=50)] = [],  # noqa: B006
) -> Response:
    if len(task) != 2:
        raise InvalidRequest(
            "two-tasks",
            f"{counted(len(task), 'task')} chosen, not two.",
            "Choose two of the list; `POST /v1/distances` compares up to 1,000.",
        )
    first, second = (tasks.get_task(task_id, tenant, session) for task_id in task)
    return page(
        request,
        "compare.html",
        first=first,
        second=second,
        distances=_distances(session, tenant, task),
        layers=_layers(session, tenant, task),
    )


def _distances(session: Session, tenant: str, ids: list[str]) -> list[tuple[Metric, float, float]]:
    """There and back, by every metric that the space has what it takes for."""
    read: dict[Compared, distances.Compared] = {}
    found = []
    for name, metric in METRICS.items():
        known = cast("MetricName", name)
        if metric.compares not in read:
            asked = DistancesQuery(tasks=ids, metric=known)
            read[metric.compares] = distances.read(session, tenant, asked)
        compared = replace(read[metric.compares], metric=known)
        try:
            (_, there), (back, _) = compared.distances()
        except InvalidRequest:  # no library: nothing to centre on, no trivial task
            continue
        found.append((metric, there, back))
    return found


def _layers(session: Session, tenant: str, ids: list[str]) -> list[LayerDifference]:
    """None where no worker told yet how the filters of the space go together."""
    first, second = (
        embeddings.load(session, tasks.present_embedding(store.get_task(session, tenant, task_id)))
        for task_id in ids
    )
    layers = spaces.layers(session, first.space_id)
    return by_layer(first.vector, second.vector, layers, epsilon=first.epsilon) if layers else []
