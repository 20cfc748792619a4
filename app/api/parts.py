"""Large archives: their client puts the parts into the blob store, then has them looked at."""

from __future__ import annotations

import logging
import math
from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, BackgroundTasks, Path, Response
from fastapi.responses import JSONResponse
from sqlalchemy.orm import Session

from app.api.auth import Tenant
from app.api.bodies import describe_json_body, json_body
from app.api.callbacks import require_callback
from app.api.deeds import deed
from app.api.problems import problems
from app.api.quotas import ByteRoom
from app.api.repeats import Post
from app.api.resources import Reached, Resources, Writing
from app.api.schemas import Accepted, PartAddress, UploadAnswer, UploadAsked
from app.api.tasks import accept_task, priority_of, probe_of
from app.api.uploads import forget_unneeded
from app.embedding.archive import inspect_archive
from app.errors import (
    Conflict,
    InvalidRequest,
    NotFound,
    Refused,
    TooLarge,
    Unavailable,
    UnsupportedMedia,
)
from app.limits import archive_limits
from app.store import uploads as store
from app.store.blobs import UPLOAD_SECONDS, Blob, Incoming, digest_of
from app.store.idempotency import Answer
from app.store.tables import Upload, new_id
from app.telemetry import log_event

router = APIRouter(tags=["tasks"])

UploadId = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")]
_REFUSALS = (InvalidRequest, Refused, TooLarge, UnsupportedMedia)


@router.post(
    "/uploads",
    status_code=201,
    response_model=UploadAnswer,
    responses={200: {"model": UploadAnswer}, **problems(409, 413, 415, 503)},
    openapi_extra=describe_json_body(UploadAsked),
)
def post_upload(
    asked: Annotated[UploadAsked, json_body(UploadAsked)],
    reached: Reached,
    tenant: Tenant,
    post: Post,
    room: ByteRoom,
) -> JSONResponse:
    """Asked for again in the same words, one that was not completed goes on."""
    incoming = _incoming(reached)
    _require_fitting(asked, reached.settings.max_upload_bytes)
    priority_of(reached, asked.size_bytes, asked.priority)
    if room is not None:
        room.require(asked.size_bytes)
    post.claim(reached, asked.model_dump_json())
    described = asked.model_dump(mode="json")
    with reached.database.session(read_only=True) as session:
        probe_of(reached, session, tenant, asked)
        require_callback(reached, session, tenant, asked.callback_url)
        row = store.find(session, tenant, described)
    missing = None if row is None else _missing(incoming, row)
    is_new = missing is None
    if row is None or missing is None:
        upload_id = new_id()
        multipart = incoming.begin(upload_id)
        with reached.database.session() as session:
            row = store.create(session, tenant, upload_id, described, multipart)
            session.add(deed(post.request, 201, upload_id))
        missing = _missing(incoming, row)
    answer = _answer(incoming, row, missing)
    return JSONResponse(
        answer.model_dump(mode="json"),
        201 if is_new else 200,
        headers={"Location": answer.links["self"]},
    )


@router.get("/uploads/{upload_id}", response_model=UploadAnswer, responses=problems(404, 409, 503))
def get_upload(upload_id: UploadId, reached: Reached, tenant: Tenant) -> UploadAnswer:
    """Which parts are missing, and where they go."""
    incoming = _incoming(reached)
    row = _row(reached, tenant, upload_id)
    return _answer(incoming, row, _missing(incoming, row))


@router.post(
    "/uploads/{upload_id}/complete",
    status_code=202,
    response_model=Accepted,
    responses=problems(404, 409, 413, 415, 503),
)
def post_complete(upload_id: UploadId, reached: Reached, tenant: Tenant, post: Post) -> Response:
    """The archive is looked at as one that is sent to /v1/tasks, and becomes a task; asked for
    again, the same one."""
    incoming = _incoming(reached)
    row = _row(reached, tenant, upload_id)
    blob = _stored(reached, incoming, row)
    try:
        with reached.database.session() as session:
            answer = post.once(session, lambda: _become(reached, session, tenant, upload_id, blob))
    except BaseException:
        if blob is not None:
            forget_unneeded(reached, [blob.sha256])
        raise
    _discard(incoming, row)
    return answer


@router.delete("/uploads/{upload_id}", status_code=204, responses=problems(404, 409, 503))
def delete_upload(
    upload_id: UploadId,
    reached: Reached,
    tenant: Tenant,
    session: Writing,
    after_commit: BackgroundTasks,
) -> None:
    """Its parts go; a task that it has become stays."""
    incoming = _incoming(reached)
    row = store.get(session, tenant, upload_id, lock=True)
    session.delete(row)
    after_commit.add_task(_discard, incoming, row)


def _incoming(reached: Resources) -> Incoming:
    if reached.blobs.incoming is None:
        raise Conflict(
            "uploads-not-offered",
            "This service keeps archives on a disk of its own, which nobody else reaches.",
            "Send the archive by POST /v1/tasks.",
        )
    return reached.blobs.incoming


def _require_fitting(asked: UploadAsked, max_upload_bytes: int) -> None:
    if asked.size_bytes > max_upload_bytes:
        raise TooLarge(
            "archive-too-large",
            f"The archive has {asked.size_bytes} bytes, {max_upload_bytes} are taken.",
            "Send fewer images, or raise TASK2VEC_MAX_UPLOAD_BYTES.",
        )
    n_parts = math.ceil(asked.size_bytes / asked.part_bytes)
    if n_parts != len(asked.parts):
        raise InvalidRequest(
            "parts-misfit",
            f"{asked.size_bytes} bytes make {n_parts} parts of {asked.part_bytes}; digests came of "
            f"{len(asked.parts)}.",
            "Send the SHA-256 of each part, the last and smaller one among them.",
        )


def _row(reached: Resources, tenant: str, upload_id: str) -> Upload:
    with reached.database.session(read_only=True) as session:
        return store.get(session, tenant, upload_id)


def _missing(incoming: Incoming, row: Upload) -> list[int] | None:
    """Numbers of the parts; None where the store knows nothing of the upload any more."""
    if row.task_id is not None:
        return []
    held = incoming.held(row.id, row.multipart)
    if held is None:
        return [] if incoming.size_bytes(row.id) == row.size_bytes else None
    return [number for number, _ in enumerate(row.asked["parts"], 1) if number not in held]


def _stored(reached: Resources, incoming: Incoming, row: Upload) -> Blob | None:
    """The archive as a blob, after it was looked at; None where the upload is a task already.

    What is refused is forgotten; whatever else goes wrong, it can be asked for again.
    """
    if row.task_id is not None:
        return None
    try:
        _join(incoming, row)
        with incoming.open(row.id) as file:
            digest = digest_of(file)
            if (digest, file.tell()) != (row.sha256, row.size_bytes):
                raise InvalidRequest(
                    "upload-damaged",
                    f"{file.tell()} bytes with SHA-256 {digest} arrived, {row.size_bytes} with "
                    f"{row.sha256} were announced.",
                    "Begin the upload anew.",
                )
            file.seek(0)
            inspect_archive(file, archive_limits(reached.settings))
        blob = Blob(row.sha256, row.size_bytes)
        incoming.accept(row.id, blob)
    except NotFound:
        if _row(reached, row.tenant, row.id).task_id is None:
            raise _lost() from None
        return None  # completed by another request meanwhile
    except _REFUSALS:
        with reached.database.session() as session:
            session.delete(store.get(session, row.tenant, row.id, lock=True))
        _discard(incoming, row)
        raise
    return blob


def _join(incoming: Incoming, row: Upload) -> None:
    held, parts = incoming.held(row.id, row.multipart), row.asked["parts"]
    if held is None:
        return  # joined before
    missing = [number for number, _ in enumerate(parts, 1) if number not in held]
    if missing:
        raise Conflict(
            "upload-incomplete",
            f"{len(missing)} of {len(parts)} parts have not arrived.",
            f"GET /v1/uploads/{row.id} tells which, and where they go.",
        )
    incoming.join(row.id, row.multipart, held, parts)


def _become(
    reached: Resources, session: Session, tenant: str, upload_id: str, blob: Blob | None
) -> Answer:
    row = store.get(session, tenant, upload_id, lock=True)
    if row.task_id is None:
        asked = UploadAsked.model_validate(row.asked)
        accepted = accept_task(reached, session, tenant, asked, blob, asked.filename)
        row.task_id, row.job_id = accepted.body["id"], accepted.body["job_id"]
    body = Accepted(id=str(row.task_id), job_id=str(row.job_id))
    return Answer(202, body.model_dump(), f"/v1/tasks/{row.task_id}")


def _discard(incoming: Incoming, row: Upload) -> None:
    try:
        incoming.discard(row.id, row.multipart)
    except Unavailable as error:  # housekeeping does it
        log_event("upload.left", level=logging.WARNING, detail=error.detail)


def _answer(incoming: Incoming, row: Upload, missing: list[int] | None) -> UploadAnswer:
    if missing is None:
        raise _lost()
    here, parts = f"/v1/uploads/{row.id}", row.asked["parts"]
    addresses = {n: incoming.address(row.id, row.multipart, n, parts[n - 1]) for n in missing}
    task = {} if row.task_id is None else {"task": f"/v1/tasks/{row.task_id}"}
    return UploadAnswer(
        id=row.id,
        size_bytes=row.size_bytes,
        sha256=row.sha256,
        part_bytes=row.asked["part_bytes"],
        missing=[
            PartAddress(number=number, url=address.url, headers=address.headers)
            for number, address in addresses.items()
        ],
        task_id=row.task_id,
        job_id=row.job_id,
        created_at=row.created_at,
        expires_at=row.created_at + timedelta(seconds=UPLOAD_SECONDS),
        links={"self": here, "complete": f"{here}/complete", **task},
    )


def _lost() -> Conflict:
    return Conflict(
        "upload-lost",
        "The store has nothing of this upload any more.",
        "Begin it anew by POST /v1/uploads.",
    )
