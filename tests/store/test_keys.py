from __future__ import annotations

import pytest
from sqlalchemy import select

from app.errors import InvalidRequest, NotFound
from app.store import keys
from app.store.session import Database
from app.store.tables import PUBLIC, ApiKey


def test_a_secret_opens_its_tenant_and_is_not_stored(database: Database) -> None:
    with database.session() as session:
        secret = keys.create_key(session, "acme", "laptop")
    assert secret.startswith("t2v_")
    with database.session(read_only=True) as session:
        assert keys.find_tenant(session, secret) == "acme"
        assert keys.find_tenant(session, secret + "x") is None
        (row,) = session.scalars(select(ApiKey))
        assert secret not in repr(vars(row))


def test_a_revoked_key_opens_nothing_and_stays_on_the_list(database: Database) -> None:
    with database.session() as session:
        laptop = keys.create_key(session, "acme", "laptop")
        session.flush()
        desk = keys.create_key(session, "acme", "desk")
    with database.session() as session:
        listed = keys.list_keys(session)
        assert [key.name for key in listed] == ["laptop", "desk"]
        keys.revoke_key(session, listed[0].id)
    with database.session() as session:
        assert keys.find_tenant(session, laptop) is None
        assert keys.find_tenant(session, desk) == "acme"
        revoked = keys.list_keys(session)[0]
        since = revoked.revoked_at
        assert since is not None
        assert keys.revoke_key(session, revoked.id).revoked_at == since


def test_an_unknown_key_cannot_be_revoked(database: Database) -> None:
    with database.session() as session, pytest.raises(NotFound):
        keys.revoke_key(session, "nobody")


def test_a_key_is_valid_until_the_last_is_revoked(database: Database) -> None:
    with database.session() as session:
        assert not keys.any_valid(session)
        keys.create_key(session, "acme", "laptop")
        assert keys.any_valid(session)
        (key,) = keys.list_keys(session)
        keys.revoke_key(session, key.id)
        assert not keys.any_valid(session)


@pytest.mark.parametrize(
    ("tenant", "name", "code"),
    [("", "laptop", "tenant-empty"), ("acme", "", "name-empty"), (" ", "laptop", "tenant-empty")],
)
def test_a_key_names_its_tenant_and_itself(
    database: Database, tenant: str, name: str, code: str
) -> None:
    with database.session() as session, pytest.raises(InvalidRequest) as caught:
        keys.create_key(session, tenant, name)
    assert caught.value.code == code


def test_nobody_gets_a_key_to_what_ships(database: Database) -> None:
    with database.session() as session, pytest.raises(InvalidRequest):
        keys.create_key(session, PUBLIC, "laptop")
