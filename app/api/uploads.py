"""Reading what is uploaded: an `archive` with its `metadata`, or JSON instead of both."""

# Without postponed annotations: `upload` makes dependencies that name each other in theirs.

from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, BinaryIO, Generic, TypeVar

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData, UploadFile

from app.api.auth import Tenant
from app.api.resources import Reached, Resources
from app.embedding.archive import inspect_archive
from app.errors import TooLarge, UnsupportedMedia
from app.limits import archive_limits
from app.store import archives
from app.store.blobs import Blob

ContentT = TypeVar("ContentT", bound=BaseModel, covariant=True)

MAX_JSON_BYTES = 32 * 2**20  # a vector of a million entries
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
    content: BaseModel
    archive: UploadFile | None


def upload(metadata: type[BaseModel], instead: type[BaseModel] | None = None) -> Any:
    """Dependency: the request's `Upload`; `instead` is the JSON that may come in its place.

    The archive's structure is checked before anything is kept, and its blob goes again if the
    request fails, its commit included: so the unit of work must be asked for after this.
    """

    async def receive(request: Request, _: Tenant) -> AsyncIterator[_Received]:
        kind = content_type(request)
        if kind == "application/json" and instead is not None:
            yield _Received(_parse(await _read_body(request), instead, ()), None)
        elif kind == "multipart/form-data":
            form = request.form(max_files=2, max_fields=2, max_part_size=_MAX_METADATA_BYTES)
            async with form as parts:
                _refuse_unknown_parts(parts)
                archive = parts.get("archive")
                if not isinstance(archive, UploadFile):
                    raise _invalid(("archive",), "missing", "Field required, as a file")
                about = parts.get("metadata", "{}")
                text = await about.read() if isinstance(about, UploadFile) else about
                yield _Received(_parse(text, metadata, ("metadata",)), archive)
        else:
            wanted = ["multipart/form-data", *(["application/json"] if instead else [])]
            raise _unsupported(kind, wanted)

    def keep(
        reached: Reached, received: Annotated[_Received, Depends(receive, scope="function")]
    ) -> Iterator[Upload[BaseModel]]:
        if received.archive is None:
            yield Upload(received.content, None)
            return
        file: BinaryIO = received.archive.file
        inspect_archive(file, archive_limits(reached.settings))
        file.seek(0)
        blob = reached.blobs.put(file)
        try:
            yield Upload(received.content, blob, received.archive.filename or "")
        except BaseException:
            forget_unneeded(reached, [blob.sha256])
            raise

    return Depends(keep, scope="function")


def forget_unneeded(reached: Resources, digests: Iterable[str]) -> None:
    """Deletes those of the blobs that no task is made of."""
    with reached.database.session() as session:
        archives.delete_unneeded(session, reached.blobs, digests)


def content_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def require_json(request: Request) -> None:
    """Dependency of routes whose JSON FastAPI reads: says 415 where it would say 422."""
    if content_type(request) != "application/json":
        raise _unsupported(content_type(request), ["application/json"])


def upload_body(
    metadata: type[BaseModel], instead: type[BaseModel] | None = None
) -> dict[str, Any]:
    """The OpenAPI entry of what `upload` reads."""
    parts = {
        "archive": {
            "type": "string",
            "format": "binary",
            "description": "zip, tar, tar.gz or tar.zst of images and labels",
        },
        "metadata": _reference(metadata),
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
        content["application/json"] = {"schema": _reference(instead)}
    return {"requestBody": {"required": True, "content": content}}


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{model.__name__}"}


async def _read_body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_JSON_BYTES:
            raise TooLarge(
                "body-too-large",
                f"The JSON is larger than {MAX_JSON_BYTES} bytes.",
                "Shorten it; an archive is sent as multipart/form-data.",
            )
    return bytes(body)


def _parse(text: str | bytes, model: type[BaseModel], within: tuple[str, ...]) -> BaseModel:
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        found = [
            {**entry, "loc": ("body", *within, *entry["loc"])}
            for entry in error.errors(include_url=False, include_input=False)
        ]
        raise RequestValidationError(found) from error


def _refuse_unknown_parts(parts: FormData) -> None:
    for name in parts:
        if name not in ("archive", "metadata"):
            raise _invalid(
                (name,), "extra_forbidden", "There are only the parts archive and metadata"
            )
        if len(parts.getlist(name)) > 1:
            raise _invalid((name,), "extra_forbidden", "This part was sent more than once")


def _invalid(where: tuple[str, ...], kind: str, message: str) -> RequestValidationError:
    return RequestValidationError([{"type": kind, "loc": ("body", *where), "msg": message}])


def _unsupported(found: str, wanted: list[str]) -> UnsupportedMedia:
    return UnsupportedMedia(
        "content-type",
        f"This route does not read {found or 'a body without a content type'}.",
        f"Send {' or '.join(wanted)}.",
    )
