"""JSON bodies: bounded, and parsed beside the event loop, which other requests wait for."""

# Without postponed annotations: `json_body` makes dependencies that name each other in theirs.

from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from app.errors import TooLarge, UnsupportedMedia

ModelT = TypeVar("ModelT", bound=BaseModel)

MAX_JSON_BYTES = 2**20
_MAX_ERRORS = 1000


def json_body(model: type[BaseModel]) -> Any:
    """Dependency: the request's JSON as that model."""

    async def receive(request: Request) -> bytes:
        if content_type(request) != "application/json":
            raise unsupported(content_type(request), ["application/json"])
        return await read_body(request, MAX_JSON_BYTES)

    def parsed(text: Annotated[bytes, Depends(receive)]) -> BaseModel:
        return parse(text, model)

    return Depends(parsed)


def describe_json_body(model: type[BaseModel]) -> dict[str, Any]:
    """The OpenAPI entry of what `json_body` reads."""
    content = {"application/json": {"schema": reference(model)}}
    return {"requestBody": {"required": True, "content": content}}


def reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{model.__name__}"}


def content_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_body(request: Request, limit_bytes: int, what: str = "JSON") -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit_bytes:
            raise TooLarge(
                "body-too-large",
                f"The {what} is larger than {limit_bytes} bytes.",
                "Shorten it; an archive is sent as multipart/form-data.",
            )
    return bytes(body)


def parse(text: str | bytes, model: type[ModelT], within: tuple[str, ...] = ()) -> ModelT:
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        count = error.error_count()
        if count > _MAX_ERRORS:  # unknown fields, each of which would take its time to describe
            whole = {
                "type": "too_many",
                "loc": ("body", *within),
                "msg": f"{count} fields do not fit",
            }
            raise RequestValidationError([whole]) from None
        found = [
            {**entry, "loc": ("body", *within, *entry["loc"])}
            for entry in error.errors(include_url=False, include_input=False)
        ]
        raise RequestValidationError(found) from error


def unsupported(found: str, wanted: list[str]) -> UnsupportedMedia:
    return UnsupportedMedia(
        "content-type",
        f"This route does not read {found or 'a body without a content type'}.",
        f"Send {' or '.join(wanted)}.",
    )
