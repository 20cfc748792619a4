"""API keys. The secret is shown once; the database keeps only its SHA-256."""

from __future__ import annotations

import hashlib
import secrets

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.errors import InvalidRequest, NotFound
from app.store.tables import PUBLIC, ApiKey, now

_PREFIX = "t2v_"


def create_key(session: Session, tenant: str, name: str) -> str:
    """The secret of a new key of the tenant."""
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
    secret = _PREFIX + secrets.token_urlsafe(32)
    session.add(ApiKey(tenant=tenant, name=name, digest=_digest(secret)))
    return secret


def find_tenant(session: Session, secret: str) -> str | None:
    """Whose secret it is; None for an unknown or revoked one."""
    return session.scalar(
        select(ApiKey.tenant).where(ApiKey.digest == _digest(secret), ApiKey.revoked_at.is_(None))
    )


def any_valid(session: Session) -> bool:
    """Whether anybody could pass a server that asks for keys."""
    query = select(ApiKey.id).where(ApiKey.revoked_at.is_(None)).limit(1)
    return session.scalar(query) is not None


def list_keys(session: Session) -> list[ApiKey]:
    """All keys, revoked ones too, the oldest first."""
    return list(session.scalars(select(ApiKey).order_by(ApiKey.created_at, ApiKey.id)))


def revoke_key(session: Session, key_id: str) -> ApiKey:
    """From the commit on it opens nothing; a key that is revoked already stays as it is."""
    key = session.get(ApiKey, key_id)
    if key is None:
        raise NotFound(
            "unknown-key",
            f"There is no API key {key_id!r}.",
            "Take the id from the list of keys: it is not the secret.",
        )
    key.revoked_at = key.revoked_at or now()
    return key


def _digest(secret: str) -> str:
    # 256 random bits need no slow hash: there is nothing to guess.
    return hashlib.sha256(secret.encode()).hexdigest()
