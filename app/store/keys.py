"""API keys. The secret is shown once; the database keeps only its SHA-256."""

from __future__ import annotations

import hashlib
import secrets

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.errors import InvalidRequest
from app.store.tables import PUBLIC, ApiKey

_PREFIX = "t2v_"


def create_key(session: Session, tenant: str, name: str) -> str:
    """The secret of a new key of the tenant."""
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


def _digest(secret: str) -> str:
    # 256 random bits need no slow hash: there is nothing to guess.
    return hashlib.sha256(secret.encode()).hexdigest()
