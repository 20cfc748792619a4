"""API keys of the caller's tenant: whoever runs it needs no shell on the service's machine."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from app.api.auth import Tenant
from app.api.bodies import describe_json_body, json_body
from app.api.problems import problems
from app.api.repeats import Post
from app.api.resources import Reading, Writing
from app.api.schemas import KeyAsked, KeyMade, KeyPage, KeyRow, RotationAsked
from app.store import keys as store
from app.store.idempotency import Answer
from app.store.tables import ApiKey, now

router = APIRouter(tags=["keys"])

KeyId = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")]


@router.get("/keys", response_model=KeyPage)
def list_keys(
    tenant: Tenant,
    session: Reading,
    prefix: Annotated[
        str, Query(max_length=store.PREFIX_CHARACTERS, description="how the secret begins")
    ] = "",
) -> KeyPage:
    """The oldest first, those that ended too."""
    found = store.list_keys(session, tenant)
    return KeyPage(items=[_row(key) for key in found if key.prefix.startswith(prefix)])


@router.post(
    "/keys",
    status_code=201,
    response_model=KeyMade,
    responses=problems(409, 413, 415),
    openapi_extra=describe_json_body(KeyAsked),
)
def post_key(
    asked: Annotated[KeyAsked, json_body(KeyAsked)],
    tenant: Tenant,
    post: Post,
    session: Writing,
) -> Response:
    """Of your tenant. The secret is told in this answer and in no other."""

    def make() -> Answer:
        ends = _ends(asked.expires_in_days)
        secret = store.create_key(session, tenant, asked.name, scope=asked.scope, expires_at=ends)
        return _made(store.find(session, secret), secret)

    return post.once(session, make, asked.model_dump_json())


@router.post(
    "/keys/{key_id}/rotation",
    status_code=201,
    response_model=KeyMade,
    responses=problems(404, 409, 413, 415),
    openapi_extra=describe_json_body(RotationAsked),
)
def post_rotation(
    key_id: KeyId,
    asked: Annotated[RotationAsked, json_body(RotationAsked)],
    tenant: Tenant,
    post: Post,
    session: Writing,
) -> Response:
    """A successor of the same scope; the old secret is valid until the overlap is over."""

    def make() -> Answer:
        secret = store.rotate_key(
            session,
            store.get_key(session, key_id, tenant),
            overlap=timedelta(hours=asked.overlap_hours),
            expires_at=_ends(asked.expires_in_days),
        )
        return _made(store.find(session, secret), secret)

    return post.once(session, make, asked.model_dump_json())


@router.delete("/keys/{key_id}", status_code=204, responses=problems(404))
def delete_key(key_id: KeyId, tenant: Tenant, session: Writing) -> None:
    """From now on it opens nothing; it stays on the list."""
    store.revoke_key(store.get_key(session, key_id, tenant))


def _ends(days: float | None) -> datetime | None:
    return None if days is None else now() + timedelta(days=days)


def _made(key: ApiKey, secret: str) -> Answer:
    return Answer(201, _row(key).model_dump(mode="json"), told_once={"secret": secret})


def _row(key: ApiKey) -> KeyRow:
    return KeyRow(**{name: getattr(key, name) for name in KeyRow.model_fields})
