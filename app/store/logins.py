"""Log-ins of browsers: for half a day a cookie stands for the API key that was shown once.

The cookie opens what its key opens, and ends with it. The database keeps its SHA-256, as of keys.
"""

from __future__ import annotations

import secrets
from datetime import timedelta

from sqlalchemy import delete
from sqlalchemy.orm import Session

from app.errors import Unauthorised
from app.store import keys
from app.store.tables import ApiKey, Login, now

LASTS = timedelta(hours=12)


def begin(session: Session, key_secret: str) -> tuple[ApiKey, str]:
    """The key, and what the cookie is to hold; Unauthorised for a key that opens nothing."""
    key = keys.find(session, key_secret)
    keys.require_valid(key)
    secret = secrets.token_urlsafe(32)
    session.add(Login(digest=keys.digest_of(secret), key_id=key.id, ends_at=now() + LASTS))
    keys.see(session, key.id, key_secret)
    return key, secret


def key_of(session: Session, secret: str) -> ApiKey:
    """Whatever the key's state; Unauthorised where the log-in has ended."""
    login = session.get(Login, keys.digest_of(secret))
    if login is None or login.ends_at <= now():
        raise Unauthorised("login-ended", "This log-in has ended.", "Log in again.")
    return session.get_one(ApiKey, login.key_id)


def end(session: Session, secret: str) -> None:
    """From the commit on the cookie opens nothing."""
    session.execute(delete(Login).where(Login.digest == keys.digest_of(secret)))


def expire(session: Session) -> None:
    session.execute(delete(Login).where(Login.ends_at <= now()))
