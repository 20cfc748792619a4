"""The nearest tasks: of a task, of a vector, and of images that are only asked about."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import timedelta
from typing import Annotated, Literal, cast
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import Field
from sqlalchemy.orm import Session

from app.api import formats
from app.api.auth import Tenant
from app.api.line import IN_LINE
from app.api.problems import problems
from app.api.quotas import require_room
from app.api.repeats import Post
from app.api.resources import Reached, Reading, Resources
from app.api.schemas import (
    ArchiveQuery,
    NeighbourRow,
    NeighboursAnswer,
    QueryAccepted,
    Tag,
    VectorQuery,
)
from app.api.tasks import TaskIdPath, present_embedding
from app.api.uploads import Upload, upload, upload_body
from app.catalogue import ProbeCard
from app.embedding.dataset import MAX_CLASSES, LabelKind
from app.embedding.metric_names import MetricName
from app.embedding.vector import TaskEmbedding
from app.store import archives, cards, embeddings, tasks
from app.store.idempotency import Answer
from app.store.neighbours import Filters, neighbours
from app.store.neighbours import Query as VectorAsked
from app.store.tables import PUBLIC, now
from app.telemetry import SEARCH_SECONDS

router = APIRouter(tags=["neighbours"])
uploads = APIRouter(tags=["neighbours"])

# How long the answer about images that are not kept can be read.
UNKEPT_HOURS = 24

K = Annotated[int, Query(ge=1, le=1000)]
Metric = Annotated[
    MetricName | None, Query(description="without it the default of the space, which is told")
]


Classes = Annotated[int, Field(ge=2, le=MAX_CLASSES)]


def _filters(
    tag: Annotated[Tag | None, Query(description="only tasks with this tag")] = None,
    label_kind: Annotated[LabelKind | None, Query(description="only tasks of this kind")] = None,
    min_classes: Annotated[Classes | None, Query(description="only tasks of as many")] = None,
    max_classes: Annotated[Classes | None, Query(description="only tasks of no more")] = None,
) -> Filters:
    return Filters(tag, label_kind, min_classes, max_classes)


Among = Annotated[Filters, Depends(_filters)]
TableFormat = Annotated[Literal["json", "csv"] | None, Query(alias="format")]


@router.get(
    "/tasks/{task_id}/neighbours",
    response_model=NeighboursAnswer,
    responses={200: formats.also("csv"), **problems(404, 409)},
    dependencies=[IN_LINE],
)
def get_neighbours(
    request: Request,
    reached: Reached,
    task_id: TaskIdPath,
    tenant: Tenant,
    session: Reading,
    among: Among,
    k: K = 10,
    metric: Metric = None,
    wanted: TableFormat = None,
) -> NeighboursAnswer | Response:
    """Exact distances, nearest first; the task itself is not among them."""
    task = tasks.get_task(session, tenant, task_id)
    embedding = embeddings.load(session, present_embedding(task))
    answer = rank(
        reached, session, tenant, embedding, k=k, metric=metric, among=among, task=task.id
    )
    if formats.choose(request, wanted, ("json", "csv")) == "csv":
        return _csv(answer)
    return answer


@uploads.post(
    "/neighbours",
    response_model=NeighboursAnswer,
    responses={
        200: formats.also("csv"),
        202: {"model": QueryAccepted},
        **problems(409, 413, 415, 503),
    },
    openapi_extra=upload_body(ArchiveQuery, VectorQuery),
)
def post_neighbours(
    request: Request,
    reached: Reached,
    tenant: Tenant,
    post: Post,
    sent: Annotated[Upload[ArchiveQuery | VectorQuery], upload(ArchiveQuery, VectorQuery)],
    wanted: TableFormat = None,
) -> NeighboursAnswer | Response:
    """Of a vector at once. Of an archive by a job whose result is the answer; it is not kept."""
    asked = sent.content
    if isinstance(asked, ArchiveQuery):
        with reached.database.session() as session:
            return _accept_query(reached, session, tenant, post, sent, asked)
    post.claim(reached, sent.fingerprint)
    with reached.database.session(read_only=True) as session:
        answer = rank(
            reached,
            session,
            tenant,
            VectorAsked(asked.space_id, asked.vector, asked.domain, asked.discriminants),
            k=asked.k,
            metric=asked.metric,
            among=_of_body(asked),
        )
    if formats.choose(request, wanted, ("json", "csv")) == "csv":
        return _csv(answer)
    return answer


def _accept_query(
    reached: Resources,
    session: Session,
    tenant: str,
    post: Post,
    sent: Upload[ArchiveQuery | VectorQuery],
    asked: ArchiveQuery,
) -> Response:
    """The images become a task that expires: never listed, and nobody's neighbour."""
    archive = sent.archive
    assert archive is not None  # noqa: S101

    def accept() -> Answer:
        probe = asked.probe or reached.settings.probe
        cards.get_card(session, tenant, ProbeCard, probe)
        require_room(reached, session, tenant, archive=archive)
        task, job = tasks.create_task(
            session,
            tenant,
            name="asked about",
            tags=(),
            label_kind=asked.label_kind,
            probe=probe,
            archive=archive,
            priority="high",
        )
        task.expires_at = now() + timedelta(hours=UNKEPT_HOURS)
        archives.require_kept(session, reached.blobs, archive.sha256)
        # The question travels in the address: the job's result is its answer, worked out when read.
        narrowed = {"metric": asked.metric, **asdict(_of_body(asked))}
        question = {
            "k": asked.k,
            **{name: value for name, value in narrowed.items() if value is not None},
        }
        address = f"/v1/jobs/{job.id}"
        links = {"self": f"{address}?{urlencode(question)}", "events": f"{address}/events"}
        return Answer(202, QueryAccepted(job_id=job.id, links=links).model_dump(), links["self"])

    return post.once(session, accept, sent.fingerprint)


def rank(
    reached: Resources,
    session: Session,
    tenant: str,
    query: TaskEmbedding | VectorAsked,
    *,
    k: int,
    metric: MetricName | None,
    among: Filters,
    task: str | None = None,
) -> NeighboursAnswer:
    with SEARCH_SECONDS.time():
        ranking = neighbours(
            session,
            reached.indexes,
            tenant,
            query,
            k=k,
            metric=metric,
            filters=replace(among, exclude_task=task),
            search_candidates=reached.settings.search_candidates,
        )
    rows = [
        NeighbourRow(
            rank=place,
            id=found.task.id,
            name=found.task.name,
            tags=[row.tag for row in found.task.tags],
            distance=found.distance,
            noise_floor=found.noise_floor,
            distinguishable=found.distinguishable,
            images=found.task.n_images,
            classes=found.task.n_classes,
            complexity=found.task.embedding.complexity if found.task.embedding else None,
            library=found.task.tenant == PUBLIC,
            source=found.task.source,
            licence=found.task.licence,
        )
        for place, found in enumerate(ranking.neighbours, 1)
    ]
    return NeighboursAnswer(
        task=task,
        space_id=query.space_id,
        metric=cast("MetricName", ranking.metric),
        exact=ranking.exact,
        unindexed=ranking.unindexed,
        neighbours=rows,
    )


def _of_body(asked: ArchiveQuery | VectorQuery) -> Filters:
    return Filters(asked.tag, **asked.among.model_dump())


def _csv(answer: NeighboursAnswer) -> Response:
    columns = [name for name in NeighbourRow.model_fields if name != "tags"]
    return formats.csv_response(
        [*columns, "tags", "metric"],
        (
            [*(getattr(row, name) for name in columns), "|".join(row.tags), answer.metric]
            for row in answer.neighbours
        ),
    )
