from __future__ import annotations

import pytest
from sqlalchemy import select

from app.errors import InvalidRequest
from app.store import keys
from app.store.session import Database
from app.store.tables import PUBLIC, ApiKey, now


def test_a_secret_opens_its_tenant_and_is_not_stored(database: Database) -> None:
    with database.session() as session:
        secret = keys.create_key(session, "acme", "laptop")
    assert secret.startswith("t2v_")
    with database.session(read_only=True) as session:
        assert keys.find_tenant(session, secret) == "acme"
        assert keys.find_tenant(session, secret + "x") is None
        (row,) = session.scalars(select(ApiKey))
        assert secret not in repr(vars(row))


def test_a_revoked_key_opens_nothing(database: Database) -> None:
    with database.session() as session:
        secret = keys.create_key(session, "acme", "laptop")
        session.scalars(select(ApiKey)).one().revoked_at = now()
    with database.session(read_only=True) as session:
        assert keys.find_tenant(session, secret) is None


def test_nobody_gets_a_key_to_what_ships(database: Database) -> None:
    with database.session() as session, pytest.raises(InvalidRequest):
        keys.create_key(session, PUBLIC, "laptop")
