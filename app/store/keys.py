"""API keys. A secret is shown once; the database keeps its SHA-256, and its first characters, by
which a key that leaked is found."""

from __future__ import annotations

import hashlib
import secrets
from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, or_, select, update
from sqlalchemy.orm import Session

from app.errors import Conflict, InvalidRequest, NotFound, Unauthorised
from app.scopes import Scope
from app.store.tables import PUBLIC, ApiKey, now

START = "t2v_"  # of every secret
PREFIX_CHARACTERS = 12  # of 47: 208 bits of the secret stay unknown
_SEEN_EVERY = timedelta(minutes=1)
_MOST_NAMED = 5


def create_key(
    session: Session,
    tenant: str,
    name: str,
    *,
    scope: Scope = "write",
    expires_at: datetime | None = None,
) -> str:
    """The secret of a new key of the tenant; without `expires_at` it lasts until it is revoked."""
    for field, value in (("tenant", tenant), ("name", name)):
        if not value.strip():
            raise InvalidRequest(
                f"{field}-empty",
                f"The {field} of an API key must not be empty.",
                f"Give the {field}: the list of keys is read by it.",
            )
    if tenant == PUBLIC:
        raise InvalidRequest(
            "tenant-reserved",
            f"The tenant {PUBLIC!r} is what ships with the service, and nobody's.",
            "Choose another name for the tenant.",
        )
    if expires_at is not None and expires_at <= now():
        raise InvalidRequest(
            "expiry-past",
            f"{expires_at.isoformat()} is over: the key would open nothing.",
            "Name a time that is to come, or none.",
        )
    secret = START + secrets.token_urlsafe(32)
    key = ApiKey(
        tenant=tenant,
        name=name,
        scope=scope,
        digest=digest_of(secret),
        prefix=secret[:PREFIX_CHARACTERS],
        expires_at=expires_at and expires_at.astimezone(UTC),
    )
    session.add(key)
    return secret


def rotate_key(
    session: Session, key: ApiKey, *, overlap: timedelta, expires_at: datetime | None = None
) -> str:
    """The secret of a new key in its place; the old one opens what it did for `overlap` yet.

    Without `expires_at` the new key lasts as long as the old one was made for. Conflict for a key
    that opens nothing, or that has a successor already.
    """
    session.refresh(key, with_for_update=True)
    if key.replaced_by is not None:
        raise Conflict(
            "key-rotated",
            f"The key {key.id!r} has a successor already.",
            f"Rotate that one: {key.replaced_by}.",
        )
    if _problem(key) is not None:
        raise Conflict(
            "key-ended",
            f"The key {key.id!r} was revoked, or its time is over.",
            "Create a new one.",
        )
    if expires_at is None and key.expires_at is not None:
        expires_at = now() + (key.expires_at - key.created_at)
    secret = create_key(session, key.tenant, key.name, scope=key.scope, expires_at=expires_at)
    key.replaced_by = find(session, secret).id
    key.expires_at = min(filter(None, (key.expires_at, now() + overlap)))
    return secret


def find(session: Session, secret: str) -> ApiKey:
    """Whatever its state; Unauthorised where there is none."""
    key = session.scalar(select(ApiKey).where(ApiKey.digest == digest_of(secret)))
    if key is None:
        raise Unauthorised("key-unknown", "This API key is unknown.", _REMEDY)
    return key


def require_valid(key: ApiKey) -> None:
    """Unauthorised for a key that was revoked, or whose time is over."""
    problem = _problem(key)
    if problem is not None:
        raise Unauthorised(*problem, _REMEDY)


def is_unseen(key: ApiKey) -> bool:
    """Whether it is time to write down again that the key is used."""
    return key.last_used_at is None or key.last_used_at < now() - _SEEN_EVERY


def see(session: Session, key_id: str, secret: str | None = None) -> None:
    """Writes down that it was used, and how it begins: of keys of before nobody knows that yet."""
    known = {"prefix": secret[:PREFIX_CHARACTERS]} if secret else {}
    session.execute(update(ApiKey).where(ApiKey.id == key_id).values(last_used_at=now(), **known))


def any_valid(session: Session) -> bool:
    """Whether anybody could pass a server that asks for keys."""
    return session.scalar(select(ApiKey.id).where(*_valid()).limit(1)) is not None


def list_keys(session: Session, tenant: str | None = None) -> list[ApiKey]:
    """Of the tenant or of all, those that ended too, the oldest first."""
    query = select(ApiKey).order_by(ApiKey.created_at, ApiKey.id)
    return list(session.scalars(query if tenant is None else query.where(ApiKey.tenant == tenant)))


def get_key(session: Session, key_id: str, tenant: str | None = None) -> ApiKey:
    """NotFound where the tenant, or without one nobody, has such a key."""
    key = session.get(ApiKey, key_id)
    if key is None or (tenant is not None and key.tenant != tenant):
        raise NotFound(
            "unknown-key",
            f"There is no API key {key_id!r}.",
            "Take the id from the list of keys: it is not the secret.",
        )
    return key


def find_key(session: Session, reference: str) -> ApiKey:
    """The key of that id, or else the only one, of any tenant, whose id begins so."""
    query = select(ApiKey.id).where(ApiKey.id.startswith(reference, autoescape=True))
    begun = list(session.scalars(query.order_by(ApiKey.id).limit(_MOST_NAMED)))
    if len(begun) > 1:
        raise InvalidRequest(
            "id-ambiguous",
            f"Several keys have ids that begin with {reference!r}: {', '.join(begun)}.",
            "Write more of the one that is meant.",
        )
    return get_key(session, begun[0] if reference and begun else reference)


def revoke_key(key: ApiKey) -> None:
    """From the commit on it opens nothing; a key that is revoked already stays as it is."""
    key.revoked_at = key.revoked_at or now()


_REMEDY = "Send a valid one; `task2vec keys create` makes one."


def _problem(key: ApiKey) -> tuple[str, str] | None:
    """Code and detail of why it opens nothing."""
    if key.revoked_at is not None:
        return "key-revoked", "This API key was revoked."
    if key.expires_at is not None and key.expires_at <= now():
        return "key-expired", f"The time of this API key was over at {key.expires_at.isoformat()}."
    return None


def _valid() -> tuple[ColumnElement[bool], ...]:
    lasts = or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > now())
    return ApiKey.revoked_at.is_(None), lasts


def digest_of(secret: str) -> str:
    """What is kept of 256 random bits, which need no slow hash: there is nothing to guess."""
    return hashlib.sha256(secret.encode()).hexdigest()
