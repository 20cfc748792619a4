"""A browser logs in with a key, and a cookie stands for it until the key, the time or the user ends it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import func, select, update

from app.api.auth import COOKIE
from app.store import keys, logins
from app.store.tables import AuditEvent, Login, now
from tests.api.conftest import ARCHIVE, Service, assert_problem

FILES = {"archive": ("a.zip", ARCHIVE)}


@pytest.fixture
def service(serve: Callable[..., Service]) -> Service:
    made = serve(auth="required")
    made.client.follow_redirects = False
    return made


def a_key(service: Service, scope: keys.Scope = "write") -> str:
    with service.resources.database.session() as session:
        return keys.create_key(session, "acme", "browser", scope=scope)


def log_in(service: Service, secret: str, **fields: str) -> None:
    answer = service.client.post("/login", data={"key": secret, **fields})
    assert answer.status_code == 303, answer.text


def test_a_page_asks_who_it_is_and_then_goes_where_one_wanted_to(service: Service) -> None:
    asked = service.client.get("/jobs?cursor=&state=failed")
    assert asked.status_code == 401
    assert 'name="wanted" value="/jobs?state=failed"' in asked.text
    assert "unknown" not in asked.text
    secret = a_key(service)
    answer = service.client.post("/login", data={"key": f" {secret}\n", "wanted": "/jobs?x=1"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/jobs?x=1")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "Secure" not in cookie  # there is no TLS here
    assert secret not in cookie
    page = service.client.get("/")
    assert page.status_code == 200
    assert "acme · write" in page.text


def test_behind_tls_the_cookie_never_leaves_it(service: Service) -> None:
    service.client.base_url = "https://localhost"
    answer = service.client.post("/login", data={"key": a_key(service)})
    assert "Secure" in answer.headers["set-cookie"]


@pytest.mark.parametrize(
    "elsewhere", ["https://evil.example", "//evil.example", "/\\evil.example", "/\t/evil.example"]
)
def test_nobody_is_led_to_another_site(service: Service, elsewhere: str) -> None:
    answer = service.client.post("/login", data={"key": a_key(service), "wanted": elsewhere})
    assert answer.status_code == 422
    assert "set-cookie" not in answer.headers


def test_a_key_that_opens_nothing_is_asked_for_again(service: Service) -> None:
    with service.resources.database.session() as session:
        revoked = keys.create_key(session, "acme", "old")
        keys.revoke_key(keys.find(session, revoked))
    for secret, says in (("t2v_unknown", "unknown"), (revoked, "revoked")):
        answer = service.client.post("/login", data={"key": secret, "wanted": "/atlas"})
        assert answer.status_code == 401
        assert says in answer.text
        assert 'value="/atlas"' in answer.text
        assert "set-cookie" not in answer.headers
        assert secret not in answer.text


def test_the_cookie_does_what_the_key_may_from_the_services_own_pages_only(
    service: Service,
) -> None:
    log_in(service, a_key(service))
    assert service.client.post("/v1/tasks", files=FILES).status_code == 202
    own = {"Origin": "http://localhost"}
    assert service.client.post("/v1/tasks", files=FILES, headers=own).status_code == 202
    foreign = service.client.post(
        "/v1/tasks", files=FILES, headers={"Origin": "https://evil.example"}
    )
    assert_problem(foreign, 403, "foreign-origin")
    assert_problem(service.client.get("/v1/keys"), 403, "scope-missing")
    with_key = {"Authorization": "Bearer t2v_unknown"}  # what is sent on purpose counts
    assert_problem(service.client.get("/v1/tasks", headers=with_key), 401, "key-unknown")


def test_it_ends_with_its_key_its_time_and_by_logging_out(service: Service) -> None:
    database = service.resources.database

    def ends(code: str) -> None:
        assert_problem(service.client.get("/v1/tasks"), 401, code)
        assert service.client.get("/").status_code == 401

    secret = a_key(service)
    log_in(service, secret)
    kept = service.client.cookies[COOKIE]
    left = service.client.post("/logout")
    assert left.headers["clear-site-data"] == '"storage"'
    assert (left.status_code, left.headers["location"]) == (303, "/login")
    assert COOKIE not in service.client.cookies
    service.client.cookies.set(COOKIE, kept, domain="localhost.local")  # somebody copied it
    ends("login-ended")
    log_in(service, secret)
    with database.session() as session:
        session.execute(update(Login).values(ends_at=now() - timedelta(seconds=1)))
    ends("login-ended")
    with database.session() as session:
        logins.expire(session)
        assert session.scalar(select(func.count()).select_from(Login)) == 0
    log_in(service, secret)
    with database.session() as session:
        keys.revoke_key(keys.find(session, secret))
    ends("key-revoked")


def test_who_logs_in_stands_in_the_audit_log_and_is_seen(service: Service) -> None:
    secret = a_key(service)
    log_in(service, secret)
    with service.resources.database.session(read_only=True) as session:
        key = keys.find(session, secret)
        assert key.last_used_at is not None
        (row,) = session.scalars(select(AuditEvent))
        assert (row.action, row.actor, row.tenant) == ("POST /login", f"key:{key.id}", "acme")


def test_where_no_keys_are_asked_for_there_is_nothing_to_log_in_to(
    serve: Callable[..., Service],
) -> None:
    service = serve()
    service.client.follow_redirects = False
    answer = service.client.get("/login")
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
