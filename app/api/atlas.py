"""The map of tasks, a page of points at a time."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from app.api import formats
from app.api.auth import Tenant
from app.api.neighbours import TableFormat
from app.api.problems import problems
from app.api.resources import Reading
from app.api.schemas import AtlasAnswer, AtlasCluster, AtlasRow, Join, Tag
from app.api.tasks import Cursor
from app.errors import NotFound
from app.store import atlas
from app.store.tables import PUBLIC

router = APIRouter(tags=["atlas"])

Number = Annotated[int, Field(ge=0, le=1_000_000)]
AtlasLimit = Annotated[int, Query(ge=1, le=10_000)]


@router.get(
    "/atlas",
    response_model=AtlasAnswer,
    responses={200: formats.also("csv"), **problems(404)},
)
def get_atlas(
    request: Request,
    tenant: Tenant,
    session: Reading,
    limit: AtlasLimit = 1_000,
    cursor: Cursor = None,
    space_id: Annotated[str | None, Query(max_length=64, description="of several")] = None,
    tag: Annotated[Tag | None, Query(description="only tasks with this tag")] = None,
    cluster: Annotated[Number | None, Query(description="only tasks of this cluster")] = None,
    wanted: TableFormat = None,
) -> AtlasAnswer | Response:
    """Your tasks and the library's as a worker last drew them; newest first."""
    drawn = atlas.find(session, tenant, space_id)
    if drawn is None:
        raise NotFound(
            "no-atlas",
            "No map of tasks was drawn yet" + (f" of space {space_id!r}." if space_id else "."),
            "Wait a minute: a worker draws it once there are embedded tasks.",
        )
    found, next_cursor = atlas.page(
        session, drawn, limit=limit, cursor=cursor, tag=tag, cluster=cluster
    )
    rows = [
        AtlasRow(
            id=task.id,
            name=task.name,
            x=point.x,
            y=point.y,
            cluster=point.cluster,
            complexity=point.complexity,
            tags=[row.tag for row in task.tags],
            classes=task.n_classes,
            images=task.n_images,
            library=task.tenant == PUBLIC,
        )
        for point, task in found
    ]
    if formats.choose(request, wanted, ("json", "csv")) == "csv":
        return _csv(rows, [each["name"] for each in drawn.clusters], next_cursor)
    return AtlasAnswer(
        space_id=drawn.space_id,
        drawn_at=drawn.created_at,
        tasks=drawn.n_tasks,
        trustworthiness=drawn.trustworthiness,
        clusters=[AtlasCluster(**each) for each in drawn.clusters],
        dendrogram=[
            Join(first=int(first), second=int(second), distance=distance)
            for first, second, distance in drawn.dendrogram
        ],
        items=rows,
        next_cursor=next_cursor,
    )


def _csv(rows: list[AtlasRow], clusters: list[str], next_cursor: str | None) -> Response:
    columns = [name for name in AtlasRow.model_fields if name != "tags"]
    return formats.csv_response(
        [*columns, "cluster_name", "tags"],
        (
            [
                *(getattr(row, name) for name in columns),
                "" if row.cluster is None else clusters[row.cluster],
                "|".join(row.tags),
            ]
            for row in rows
        ),
        next_cursor,
    )
