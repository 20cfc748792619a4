"""Embeddings of many tasks as one table, a page at a time."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Annotated, Any, Literal, get_args

import polars as pl
from fastapi import APIRouter, Query, Response

from app.api import formats
from app.api.auth import Tenant
from app.api.resources import Reached
from app.api.schemas import SpaceId, Tag
from app.api.slots import Slots
from app.api.tasks import Cursor, present_embedding
from app.embedding.vector import TaskEmbedding, Vector
from app.store import embeddings, tasks
from app.store.tables import PUBLIC, Task

router = APIRouter(tags=["tasks"])

Array = Literal["vector", "domain", "discriminants", "draw_error", "sampling_error"]
ARRAYS: tuple[Array, ...] = get_args(Array)
# A page of the default probe takes some 50 MB while it is written.
ExportLimit = Annotated[int, Query(ge=1, le=50)]

_NUMBERS = pl.List(pl.Float32)
_COLUMNS: dict[str, tuple[Any, Callable[[Task, TaskEmbedding], Any]]] = {
    "id": (pl.String, lambda task, _: task.id),
    "name": (pl.String, lambda task, _: task.name),
    "tags": (pl.List(pl.String), lambda task, _: [row.tag for row in task.tags]),
    "version": (pl.Int64, lambda task, _: task.version),
    "label_kind": (pl.String, lambda task, _: task.label_kind),
    "images": (pl.Int64, lambda task, _: task.n_images),
    "classes": (pl.Int64, lambda task, _: task.n_classes),
    "library": (pl.Boolean, lambda task, _: task.tenant == PUBLIC),
    "source": (pl.String, lambda task, _: task.source),
    "licence": (pl.String, lambda task, _: task.licence),
    "created_at": (pl.Datetime("us", "UTC"), lambda task, _: task.created_at),
    "probe": (pl.String, lambda _, found: found.provenance.probe),
    "space_id": (pl.String, lambda _, found: found.space_id),
    "complexity": (pl.Float64, lambda _, found: found.complexity),
    "noise_floor": (pl.Float64, lambda _, found: found.noise_floor),
    "epsilon": (pl.Float64, lambda _, found: found.epsilon),
    "noise": (pl.String, lambda _, found: json.dumps(asdict(found.noise))),
    "provenance": (pl.String, lambda _, found: json.dumps(asdict(found.provenance))),
}
_writing = Slots(2, "exports-busy", "Other pages of embeddings are being written.")


@router.get(
    "/embeddings",
    response_class=Response,
    responses={
        200: {
            "content": {
                formats.MEDIA_TYPES["parquet"]: {"schema": {"type": "string", "format": "binary"}}
            }
        },
    },
)
def get_embeddings(
    reached: Reached,
    tenant: Tenant,
    limit: ExportLimit = 25,
    cursor: Cursor = None,
    tag: Annotated[Tag | None, Query(description="only of tasks with this tag")] = None,
    space_id: Annotated[SpaceId | None, Query(description="only of this space")] = None,
    library: Annotated[bool, Query(description="of the reference library's tasks")] = False,
    arrays: Annotated[
        list[Array], Query(max_length=len(ARRAYS), description="columns of numbers; all without it")
    ] = list(ARRAYS),  # noqa: B006
) -> Response:
    """A page as Parquet, newest task first; the next cursor is in the header
    `Task2Vec-Next-Cursor`."""
    with _writing.one():
        with reached.database.session(read_only=True) as session:
            found, next_cursor = tasks.list_embedded(
                session,
                PUBLIC if library else tenant,
                limit=limit,
                cursor=cursor,
                tag=tag,
                space_id=space_id,
            )
            loaded = embeddings.load_all(session, [present_embedding(task) for task in found])
        content = _parquet(found, loaded, arrays)
    return formats.file_response(content, "embeddings", "parquet", next_cursor)


def _parquet(
    found: Sequence[Task], loaded: Sequence[TaskEmbedding], arrays: Sequence[Array]
) -> bytes:
    pairs = list(zip(found, loaded, strict=True))
    columns = [
        pl.Series(name, [read(*pair) for pair in pairs], dtype)
        for name, (dtype, read) in _COLUMNS.items()
    ]
    columns += [
        _numbers(name, [getattr(embedding, name) for embedding in loaded])
        for name in ARRAYS
        if name in arrays
    ]
    buffer = io.BytesIO()
    pl.DataFrame(columns).write_parquet(buffer)
    return buffer.getvalue()


def _numbers(name: Array, values: Sequence[Vector]) -> pl.Series:
    """Lists, since tasks of several spaces differ in how many numbers they have."""
    if name == "discriminants":
        return pl.Series(name, [list(rows) for rows in values], pl.List(_NUMBERS))
    return pl.Series(name, values, _NUMBERS).cast(_NUMBERS)  # of one length they came as arrays
