from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import select

from app.errors import Conflict, InvalidRequest, NotFound, Unauthorised
from app.store import keys
from app.store.session import Database
from app.store.tables import PUBLIC, ApiKey, now

DAY = timedelta(days=1)


def create(database: Database, **asked: object) -> str:
    with database.session() as session:
        return keys.create_key(session, "acme", "laptop", **asked)


def opens(database: Database, secret: str) -> bool:
    with database.session(read_only=True) as session:
        key = keys.find(session, secret)
        try:
            keys.require_valid(key)
        except Unauthorised:
            return False
    return True


def end(database: Database, secret: str) -> None:
    """Its time is over from now on."""
    with database.session() as session:
        keys.find(session, secret).expires_at = now()


def test_a_secret_finds_its_key_and_only_its_beginning_is_stored(database: Database) -> None:
    secret = create(database, scope="read")
    assert secret.startswith("t2v_")
    with database.session(read_only=True) as session:
        found = keys.find(session, secret)
        assert (found.tenant, found.name, found.scope) == ("acme", "laptop", "read")
        with pytest.raises(Unauthorised) as caught:
            keys.find(session, secret + "x")
        assert caught.value.code == "key-unknown"
        (row,) = session.scalars(select(ApiKey))
        assert secret not in repr(vars(row))
        assert row.prefix == secret[:12]


def test_a_key_may_write_and_lasts_unless_something_else_is_asked(database: Database) -> None:
    secret = create(database)
    with database.session(read_only=True) as session:
        found = keys.find(session, secret)
        assert (found.scope, found.expires_at, found.last_used_at) == ("write", None, None)


def test_a_revoked_key_opens_nothing_and_stays_on_the_list(database: Database) -> None:
    with database.session() as session:
        laptop = keys.create_key(session, "acme", "laptop")
        session.flush()
        desk = keys.create_key(session, "acme", "desk")
    with database.session() as session:
        listed = keys.list_keys(session)
        assert [key.name for key in listed] == ["laptop", "desk"]
        keys.revoke_key(listed[0])
    assert [opens(database, secret) for secret in (laptop, desk)] == [False, True]
    with database.session() as session:
        revoked = keys.list_keys(session)[0]
        since = revoked.revoked_at
        assert since is not None
        keys.revoke_key(revoked)
        assert revoked.revoked_at == since


def test_a_key_whose_time_is_over_opens_nothing(database: Database) -> None:
    secret = create(database, expires_at=now() + DAY)
    assert opens(database, secret)
    end(database, secret)
    assert not opens(database, secret)


def test_the_end_of_a_key_is_the_same_moment_in_any_time_zone(database: Database) -> None:
    noon_in_tokyo = datetime(2100, 1, 1, 12, tzinfo=timezone(timedelta(hours=9)))
    secret = create(database, expires_at=noon_in_tokyo)
    with database.session(read_only=True) as session:
        assert keys.find(session, secret).expires_at == datetime(2100, 1, 1, 3, tzinfo=UTC)


def test_a_key_that_ends_before_it_begins_is_refused(database: Database) -> None:
    with pytest.raises(InvalidRequest) as caught:
        create(database, expires_at=now())
    assert caught.value.code == "expiry-past"


def test_a_tenant_has_its_own_keys_alone(database: Database) -> None:
    create(database)
    with database.session() as session:
        keys.create_key(session, "other", "desk")
        (own,) = keys.list_keys(session, "other")
        (foreign,) = keys.list_keys(session, "acme")
        assert keys.get_key(session, own.id, "other") is own
        for key_id in (foreign.id, "nobody"):
            with pytest.raises(NotFound):
                keys.get_key(session, key_id, "other")


def rotate(database: Database, secret: str, **asked: object) -> str:
    with database.session() as session:
        return keys.rotate_key(session, keys.find(session, secret), **asked)


def test_of_a_rotated_key_both_secrets_are_valid_until_the_overlap_is_over(
    database: Database,
) -> None:
    old = create(database, scope="admin", expires_at=now() + 90 * DAY)
    new = rotate(database, old, overlap=DAY)
    assert opens(database, old)
    assert opens(database, new)
    with database.session(read_only=True) as session:
        before, after = keys.find(session, old), keys.find(session, new)
        assert before.replaced_by == after.id
        assert (after.tenant, after.name, after.scope) == ("acme", "laptop", "admin")
        assert before.expires_at is not None
        assert before.expires_at - now() <= DAY
        assert after.expires_at is not None
        assert abs(after.expires_at - now() - 90 * DAY) < timedelta(minutes=1)


def test_without_overlap_the_old_secret_ends_with_the_rotation(database: Database) -> None:
    old = create(database)
    new = rotate(database, old, overlap=timedelta())
    assert [opens(database, secret) for secret in (old, new)] == [False, True]


def test_an_overlap_prolongs_nothing(database: Database) -> None:
    soon = now() + timedelta(hours=1)
    old = create(database, expires_at=soon)
    rotate(database, old, overlap=DAY)
    with database.session(read_only=True) as session:
        assert keys.find(session, old).expires_at == soon


@pytest.mark.parametrize("how", ["rotated", "revoked", "expired"])
def test_a_key_that_ended_or_has_a_successor_is_not_rotated(database: Database, how: str) -> None:
    secret = create(database)
    if how == "rotated":
        rotate(database, secret, overlap=DAY)
    elif how == "expired":
        end(database, secret)
    else:
        with database.session() as session:
            keys.revoke_key(keys.find(session, secret))
    with pytest.raises(Conflict) as caught:
        rotate(database, secret, overlap=DAY)
    assert caught.value.code == ("key-rotated" if how == "rotated" else "key-ended")
    with database.session(read_only=True) as session:
        assert len(keys.list_keys(session)) == (2 if how == "rotated" else 1)


def test_a_key_is_valid_until_the_last_was_revoked_or_its_time_is_over(database: Database) -> None:
    with database.session() as session:
        assert not keys.any_valid(session)
        first, second = (keys.create_key(session, "acme", "laptop") for _ in range(2))
        assert keys.any_valid(session)
        keys.revoke_key(keys.find(session, first))
        assert keys.any_valid(session)
        keys.find(session, second).expires_at = now()
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


def test_a_use_is_written_down_once_a_minute_with_how_the_secret_begins(database: Database) -> None:
    secret = create(database)
    with database.session() as session:
        key = keys.find(session, secret)
        key.prefix = ""  # as in keys of before there were any
        assert keys.is_unseen(key)
        keys.see(session, keys.find(session, secret).id, secret)
        session.refresh(key)
        assert key.prefix == secret[:12]
        assert not keys.is_unseen(key)
        key.last_used_at = now() - timedelta(minutes=1)
        assert keys.is_unseen(key)
