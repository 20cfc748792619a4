"""Reading what is uploaded: an `archive` with its `metadata`, or JSON instead of both."""

# Without postponed annotations: `upload` makes dependencies that name each other in theirs.

import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any, BinaryIO, Generic, TypeVar

from fastapi import Depends, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.types import Message

from app.api.auth import Asking
from app.api.bodies import content_type, parse, read_body, reference, unsupported
from app.api.line import Lines
from app.api.quotas import Room, room_for_bytes
from app.api.resources import Reached, Resources
from app.embedding.archive import ArchiveLimits, inspect_archive
from app.errors import TooLarge, Unavailable
from app.limits import archive_limits
from app.store import archives
from app.store.blobs import Blob
from app.telemetry import log_event

ContentT = TypeVar("ContentT", bound=BaseModel, covariant=True)

_MAX_VECTOR_BYTES = 32 * 2**20  # a million entries
# The boundary lines, part headers and metadata around an archive.
MULTIPART_OVERHEAD_BYTES = 128 * 2**10
_MAX_METADATA_BYTES = 64 * 2**10


@dataclass(frozen=True, slots=True)
class Upload(Generic[ContentT]):
    """What came, and the archive in the blob store: none where the request was JSON."""

    content: ContentT
    archive: Blob | None
    filename: str = ""

    @property
    def fingerprint(self) -> str:
        """Equal where content and archive are."""
        return f"{self.content.model_dump_json()}\n{self.archive.sha256 if self.archive else ''}"


@dataclass(frozen=True, slots=True)
class _Received:
    """As it came: JSON, and the model that it should be."""

    text: str | bytes
    model: type[BaseModel]
    archive: UploadFile | None = None


def upload(
    metadata: type[BaseModel],
    instead: type[BaseModel] | None = None,
    *,
    inspect: Callable[[BinaryIO, ArchiveLimits], object] = inspect_archive,
    is_stored: bool = True,
) -> Any:
    """Dependency: the request's `Upload`; `instead` is the JSON that may come in its place.

    The archive's structure is checked by `inspect` before anything is kept, and its blob goes again
    if the request fails, its commit included: so the unit of work must be asked for after this.
    Only what `is_stored` counts among the tenant's bytes.
    """

    async def receive(
        request: Request, caller: Asking, reached: Reached
    ) -> AsyncIterator[_Received]:
        kind = content_type(request)
        if kind == "application/json" and instead is not None:
            yield _Received(await read_body(request, _MAX_VECTOR_BYTES), instead)
        elif kind == "multipart/form-data":
            caller.require("write")
            room = await run_in_threadpool(room_for_bytes, request, reached, caller.tenant)
            counted = _within(room, request) if room is not None and is_stored else request
            async with _form(counted) as parts:
                _refuse_unknown_parts(parts)
                archive = parts.get("archive")
                if not isinstance(archive, UploadFile):
                    raise _invalid("archive", "takes a file")
                yield _Received(await _metadata(parts), metadata, archive)
        else:
            wanted = ["multipart/form-data", *(["application/json"] if instead else [])]
            raise unsupported(kind, wanted)

    async def in_line(
        request: Request, received: Annotated[_Received, Depends(receive, scope="function")]
    ) -> AsyncIterator[_Received]:
        if received.archive is None:
            yield received
            return
        lines: Lines = request.app.state.lines
        async with lines.uploads.turn():
            yield received

    def keep(
        reached: Reached, received: Annotated[_Received, Depends(in_line, scope="function")]
    ) -> Iterator[Upload[BaseModel]]:
        if received.archive is None:
            yield Upload(parse(received.text, received.model), None)
            return
        content = parse(received.text, received.model, ("metadata",))
        file: BinaryIO = received.archive.file
        inspect(file, archive_limits(reached.settings))
        file.seek(0)
        blob = reached.blobs.put(file)
        try:
            yield Upload(content, blob, received.archive.filename or "")
        except BaseException:
            forget_unneeded(reached, [blob.sha256])
            raise

    return Depends(keep, scope="function")


def forget_unneeded(reached: Resources, digests: Iterable[str]) -> None:
    """Deletes those of the blobs that nothing needs.

    Where their store does not answer they are left to housekeeping: what the request did stands.
    """
    try:
        with reached.database.session() as session:
            archives.delete_unneeded(session, reached.blobs, digests)
    except Unavailable as error:
        log_event("blobs.left", level=logging.WARNING, detail=error.detail)


def upload_body(
    metadata: type[BaseModel],
    instead: type[BaseModel] | None = None,
    *,
    archive: str = "zip, tar, tar.gz or tar.zst of images and labels",
) -> dict[str, Any]:
    """The OpenAPI entry of what `upload` reads; `archive` describes it."""
    parts = {
        "archive": {
            "type": "string",
            "format": "binary",
            "description": archive,
        },
        "metadata": reference(metadata),
    }
    content: dict[str, Any] = {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": parts,
                "required": ["archive"],
                "additionalProperties": False,
            },
            "encoding": {"metadata": {"contentType": "application/json"}},
        }
    }
    if instead is not None:
        content["application/json"] = {"schema": reference(instead)}
    return {"requestBody": {"required": True, "content": content}}


def _within(room: Room, request: Request) -> Request:
    """The same, counted as it comes: not every client says beforehand how much it sends."""
    declared = request.headers.get("content-length", "")
    room.require(int(declared) - MULTIPART_OVERHEAD_BYTES if declared.isdecimal() else 0)
    received = -MULTIPART_OVERHEAD_BYTES

    async def receive() -> Message:
        nonlocal received
        message = await request.receive()
        received += len(message.get("body", b""))
        room.require(received)
        return message

    return Request(request.scope, receive)


@asynccontextmanager
async def _form(request: Request) -> AsyncIterator[FormData]:
    form = request.form(max_files=2, max_fields=2, max_part_size=_MAX_METADATA_BYTES)
    try:
        parts = await form
    except HTTPException as error:  # starlette tells by words alone which of its limits it was
        if error.detail.startswith("Part exceeded maximum size"):
            raise _metadata_too_large() from error
        raise
    try:
        yield parts
    finally:
        await parts.close()


async def _metadata(parts: FormData) -> str | bytes:
    sent = parts.get("metadata", "{}")
    if not isinstance(sent, UploadFile):
        return sent
    if (sent.size or 0) > _MAX_METADATA_BYTES:
        raise _metadata_too_large()
    return await sent.read()


def _metadata_too_large() -> TooLarge:
    return TooLarge(
        "metadata-too-large",
        f"The part `metadata` is larger than {_MAX_METADATA_BYTES} bytes.",
        "Shorten it; the images go into the part `archive`, sent as a file.",
    )


def _refuse_unknown_parts(parts: FormData) -> None:
    for name in parts:
        if name not in ("archive", "metadata"):
            raise _invalid(name, "There are only the parts archive and metadata")
        if len(parts.getlist(name)) > 1:
            raise _invalid(name, "This part was sent more than once")


def _invalid(part: str, message: str) -> RequestValidationError:
    return RequestValidationError([{"type": "value_error", "loc": ("body", part), "msg": message}])
