"""Tasks: sent in, looked at, changed, deleted; their intake report and their embedding."""

from __future__ import annotations

import io
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, BackgroundTasks, Path, Query, Request, Response
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.api import formats
from app.api.auth import Tenant
from app.api.bodies import describe_json_body, json_body
from app.api.callbacks import ask_callback
from app.api.problems import problems
from app.api.quotas import require_room
from app.api.repeats import Post
from app.api.resources import Reached, Reading, Resources, Writing
from app.api.schemas import (
    Accepted,
    AmongLibrary,
    ClassesAnswer,
    ClassRow,
    Counts,
    EmbeddingAnswer,
    IntakeAnswer,
    NoMetadata,
    Tag,
    TaskAnswer,
    TaskChanges,
    TaskFromSource,
    TaskMetadata,
    TaskPage,
    TaskRow,
    TaskStatus,
)
from app.api.uploads import (
    Upload,
    forget_unneeded,
    upload,
    upload_body,
)
from app.catalogue import ProbeCard
from app.errors import Conflict, InvalidRequest, NotFound
from app.priorities import Priority
from app.sources import require_allowed
from app.store import archives, cards, embeddings, reference, strips
from app.store import tasks as store
from app.store.blobs import Blob
from app.store.idempotency import Answer
from app.store.jobs import ASIDE
from app.store.tables import PUBLIC, Job, Task

router = APIRouter(tags=["tasks"])
uploads = APIRouter(tags=["tasks"])

TaskIdPath = Annotated[str, Path(pattern=r"^[A-Za-z0-9._:-]{1,100}$")]
Limit = Annotated[int, Query(ge=1, le=200)]
Cursor = Annotated[str | None, Query(max_length=100)]
IdPrefix = Annotated[
    str | None, Query(pattern=r"^[A-Za-z0-9._:-]{1,100}$", description="how the id begins")
]

_ARCHIVE_ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.zst", ".tzst")


@uploads.post(
    "/tasks",
    status_code=202,
    response_model=Accepted,
    responses=problems(404, 409, 413, 415, 503),
    openapi_extra=upload_body(TaskMetadata, TaskFromSource),
)
def post_task(
    reached: Reached,
    tenant: Tenant,
    post: Post,
    sent: Annotated[Upload[TaskMetadata], upload(TaskMetadata, TaskFromSource)],
    session: Writing,
) -> Response:
    asked = sent.content
    source = asked.source if isinstance(asked, TaskFromSource) else None
    if source is not None:
        require_allowed(source, reached.settings.source_prefixes)

    def accept() -> Answer:
        return accept_task(
            reached, session, tenant, asked, sent.archive, sent.filename, source=source
        )

    return post.once(session, accept, sent.fingerprint)


@uploads.post(
    "/tasks/{task_id}/images",
    status_code=202,
    response_model=Accepted,
    responses=problems(404, 409, 413, 415, 503),
    openapi_extra=upload_body(NoMetadata),
)
def post_images(
    task_id: TaskIdPath,
    reached: Reached,
    tenant: Tenant,
    post: Post,
    sent: Annotated[Upload[NoMetadata], upload(NoMetadata)],
    session: Writing,
) -> Response:
    """More images: a new version of the task, embedded again."""
    archive = sent.archive
    assert archive is not None  # noqa: S101

    def accept() -> Answer:
        task = store.get_own_task(session, tenant, task_id)
        require_room(reached, session, tenant, archive=archive)
        priority = priority_of(reached, archive.size_bytes)
        job = store.add_images(session, task, archive, priority)
        return _accepted(reached, session, archive, task, job)

    return post.once(session, accept, sent.fingerprint)


@router.get("/tasks", response_model=TaskPage)
def list_tasks(
    tenant: Tenant,
    session: Reading,
    limit: Limit = 50,
    cursor: Cursor = None,
    id_prefix: IdPrefix = None,
    status: TaskStatus | None = None,
    tag: Annotated[Tag | None, Query()] = None,
    q: Annotated[str | None, Query(max_length=200, description="part of the name")] = None,
    library: Annotated[bool, Query(description="the reference library's tasks, not yours")] = False,
) -> TaskPage:
    """Newest first."""
    found, next_cursor = store.list_tasks(
        session,
        PUBLIC if library else tenant,
        limit=limit,
        cursor=cursor,
        id_prefix=id_prefix,
        status=status,
        tag=tag,
        query=q,
    )
    return TaskPage(items=_rows(session, found), next_cursor=next_cursor)


@router.get("/tasks/{task_id}", response_model=TaskAnswer, responses=problems(404))
def get_task(task_id: TaskIdPath, tenant: Tenant, session: Reading) -> TaskAnswer:
    return _answer(session, store.get_task(session, tenant, task_id))


@router.patch(
    "/tasks/{task_id}",
    response_model=TaskAnswer,
    responses=problems(404, 413, 415),
    openapi_extra=describe_json_body(TaskChanges),
)
def patch_task(
    task_id: TaskIdPath,
    changes: Annotated[TaskChanges, json_body(TaskChanges)],
    tenant: Tenant,
    session: Writing,
) -> TaskAnswer:
    task = store.get_own_task(session, tenant, task_id)
    store.update_task(session, task, name=changes.name, tags=changes.tags)
    return _answer(session, task)


@router.delete("/tasks/{task_id}", status_code=204, responses=problems(404))
def delete_task(
    task_id: TaskIdPath,
    reached: Reached,
    tenant: Tenant,
    session: Writing,
    after_commit: BackgroundTasks,
) -> None:
    """Its jobs and images go with it."""
    task = store.get_own_task(session, tenant, task_id)
    after_commit.add_task(forget_unneeded, reached, store.delete_task(session, task))


@router.get("/tasks/{task_id}/intake", response_model=IntakeAnswer, responses=problems(404, 409))
def get_intake(task_id: TaskIdPath, tenant: Tenant, session: Reading) -> IntakeAnswer:
    """What became of every file of the archive."""
    task = store.get_task(session, tenant, task_id)
    summary = _intake(task)
    return IntakeAnswer(id=task.id, summary=summary, files=task.intake_files or [])


@router.get("/tasks/{task_id}/classes", response_model=ClassesAnswer, responses=problems(404, 409))
def get_classes(task_id: TaskIdPath, tenant: Tenant, session: Reading) -> ClassesAnswer:
    """How many images each class has, and what some of them look like."""
    task = store.get_task(session, tenant, task_id)
    numbers = strips.numbers(session, task)
    rows = [
        ClassRow(
            label=label,
            images=images,
            strip=f"/v1/tasks/{task.id}/classes/{numbers[label]}/strip"
            if label in numbers
            else None,
        )
        for label, images in _intake(task)["classes"].items()
    ]
    return ClassesAnswer(id=task.id, classes=rows)


@router.get(
    "/tasks/{task_id}/classes/{number}/strip",
    response_class=Response,
    responses={200: {"content": {"image/webp": {}}}, **problems(404)},
)
def get_strip(
    task_id: TaskIdPath,
    number: Annotated[int, Path(ge=0, le=1_000_000)],
    tenant: Tenant,
    session: Reading,
) -> Response:
    """Up to eight images of a class side by side, each 56 pixels square."""
    task = store.get_task(session, tenant, task_id)
    return Response(strips.picture(session, task, number), media_type="image/webp")


@router.get(
    "/tasks/{task_id}/embedding",
    response_model=EmbeddingAnswer,
    responses={200: formats.also("npy", "npz"), **problems(404, 409)},
)
def get_embedding(
    request: Request,
    task_id: TaskIdPath,
    tenant: Tenant,
    session: Reading,
    format: Annotated[  # noqa: A002
        Literal["json", "npy", "npz"] | None,
        Query(description="npy: the vector alone; npz: all arrays, as `task2vec embed --out`"),
    ] = None,
) -> EmbeddingAnswer | Response:
    task = store.get_task(session, tenant, task_id)
    embedding = embeddings.load(session, present_embedding(task))
    kind = formats.choose(request, format, ("json", "npy", "npz"))
    if kind == "npz":
        return formats.file_response(embedding.to_npz(), task.id, kind)
    if kind == "npy":
        buffer = io.BytesIO()
        np.save(buffer, embedding.vector)
        return formats.file_response(buffer.getvalue(), task.id, kind)
    return EmbeddingAnswer.of(task.id, embedding)


def accept_task(
    reached: Resources,
    session: Session,
    tenant: str,
    asked: TaskMetadata,
    archive: Blob | None,
    filename: str,
    *,
    source: str | None = None,
) -> Answer:
    """In the unit of work that commits it; no `archive` where a worker is to fetch `source`."""
    require_room(reached, session, tenant, archive=archive, tasks=1)
    task, job = store.create_task(
        session,
        tenant,
        name=asked.name or _name_of(source or filename),
        tags=asked.tags,
        label_kind=asked.label_kind,
        probe=probe_of(reached, session, tenant, asked),
        archive=archive,
        source=source,
        priority=priority_of(reached, archive.size_bytes if archive else None, asked.priority),
    )
    ask_callback(reached, session, job, asked.callback_url)
    return _accepted(reached, session, archive, task, job)


def probe_of(reached: Resources, session: Session, tenant: str, asked: TaskMetadata) -> str:
    """InvalidRequest where there is none of that name."""
    probe = asked.probe or reached.settings.probe
    return cards.get_card(session, tenant, ProbeCard, probe).name


def _accepted(
    reached: Resources, session: Session, archive: Blob | None, task: Task, job: Job
) -> Answer:
    """However the archive came, its size is known here, before it is anybody's."""
    if archive is not None:
        archives.require_kept(session, reached.blobs, archive.sha256)
    return Answer(202, Accepted(id=task.id, job_id=job.id).model_dump(), f"/v1/tasks/{task.id}")


def priority_of(
    reached: Resources, size_bytes: int | None, asked: Priority | None = None
) -> Priority:
    """As asked; where nobody asks, what is small does not wait for what is large. Nobody knows yet
    how large a source is."""
    most = reached.settings.small_archive_bytes
    is_small = size_bytes is not None and size_bytes <= most
    if asked == "high" and not is_small:
        raise InvalidRequest(
            "priority-not-allowed",
            f"Only an archive of at most {most:,} bytes may have the priority `high`.",
            "Leave `priority` out, or send fewer images.",
        )
    return asked or ("normal" if is_small or size_bytes is None else "low")


def _name_of(address: str) -> str:
    """A name for a task that came without one: its archive's, without folder and ending."""
    name = PurePosixPath(address.replace("\\", "/")).name
    for ending in sorted(_ARCHIVE_ENDINGS, key=len, reverse=True):
        if name.lower().endswith(ending):
            name = name[: -len(ending)]
            break
    printable = "".join(letter for letter in name if letter.isprintable()).strip()
    return printable[:200] or "unnamed"


def _answer(session: Session, task: Task) -> TaskAnswer:
    (row,) = _rows(session, [task])
    among = None
    if row.space_id is not None and row.complexity is not None:
        easier, of = reference.easier(session, row.space_id, row.complexity)
        among = AmongLibrary(tasks=of, easier=easier)
    return TaskAnswer(**dict(row), among_library=among, intake=task.intake_summary)


def _rows(session: Session, tasks: list[Task]) -> list[TaskRow]:
    seqs = [task.seq for task in tasks]
    embedding = (Job.task_seq.in_(seqs), Job.kind.not_in(ASIDE))
    newest = select(func.max(Job.seq)).where(*embedding).group_by(Job.task_seq)
    rows = session.execute(select(Job.task_seq, Job.id).where(Job.seq.in_(newest)))
    job_ids: dict[int, str] = dict(rows.all())
    return [_row(task, job_ids.get(task.seq)) for task in tasks]


def _row(task: Task, job_id: str | None) -> TaskRow:
    embedding = task.embedding
    here = f"/v1/tasks/{task.id}"
    links = {"self": here, "intake": f"{here}/intake"}
    if task.embedding_seq is not None:
        links |= {name: f"{here}/{name}" for name in ("embedding", "neighbours", "estimates")}
    if job_id is not None:
        links["job"] = f"/v1/jobs/{job_id}"
    return TaskRow(
        id=task.id,
        name=task.name,
        tags=[row.tag for row in task.tags],
        status=task.status,
        label_kind=task.label_kind,
        probe=task.probe,
        version=task.version,
        library=task.tenant == PUBLIC,
        source=task.source,
        licence=task.licence,
        counts=Counts(images=task.n_images, classes=task.n_classes),
        space_id=embedding.space_id if embedding else None,
        complexity=embedding.complexity if embedding else None,
        noise_floor=embedding.noise_floor if embedding else None,
        provenance=embedding.provenance if embedding else None,
        problem=task.problem,
        job_id=job_id,
        created_at=task.created_at,
        updated_at=task.updated_at,
        links=links,
    )


def present_embedding(task: Task) -> int:
    """Its seq, also while a new version of the task is embedded; Conflict where there is none."""
    if task.embedding_seq is None:
        raise _not_ready(task)
    return task.embedding_seq


def task_with_images(session: Session, tenant: str, task_id: str) -> Task:
    """The tenant's own, with an embedding and the images that it is of."""
    task = store.get_own_task(session, tenant, task_id)
    present_embedding(task)
    if not task.archives:
        raise Conflict(
            "task-without-images",
            f"The images of the task {task_id!r} are not stored.",
            "Upload them as a new task.",
        )
    return task


def _intake(task: Task) -> dict[str, Any]:
    """Its summary."""
    if task.intake_summary is None:
        if task.status in ("queued", "embedding"):
            raise _not_ready(task)
        raise _no_intake(task)
    return task.intake_summary


def _no_intake(task: Task) -> NotFound:
    why = "it came without images" if task.tenant == PUBLIC else "not all of its files were read"
    return NotFound(
        "no-intake",
        f"The task {task.id!r} has no intake report: {why}.",
        "Look at its source." if task.tenant == PUBLIC else "Look at its problem.",
    )


def _not_ready(task: Task) -> Conflict:
    waiting = task.status in ("queued", "embedding")
    return Conflict(
        "task-not-ready",
        f"The task {task.id!r} is {task.status}: it has no embedding.",
        "Wait for its job to end."
        if waiting
        else f"`problem` of `GET /v1/tasks/{task.id}` says why, as does `task2vec intake "
        f"{task.id[:8]}`; mend that and send it again.",
        task_status=task.status,
    )
