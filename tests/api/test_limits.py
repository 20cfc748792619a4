"""What a tenant may ask for, and what it is told where that is not enough."""

from __future__ import annotations

import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import limits.storage.memory
import limits.strategies
import pytest
from starlette.types import Message

from app.api import rates
from app.api.rates import Rates
from app.store import keys
from tests.api.conftest import (
    ARCHIVE,
    LIBRARY_SPACE,
    Service,
    archive_of,
    assert_problem,
    embedding_of,
)

OTHER = archive_of({"cat/3.png": b"third", "dog/4.png": b"fourth"})


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The limits' own, which stands still: `clock.now`."""
    clock = SimpleNamespace(now=1e9 + 30)
    for module in (limits.storage.memory, limits.strategies, rates):
        monkeypatch.setattr(module, "time", SimpleNamespace(time=lambda: clock.now))
    return clock


@pytest.fixture
def ask(serve: Callable[..., Service]) -> Callable[..., Service]:
    """A service that asks for keys, and whose client has one of ann's."""

    def start(**changes: Any) -> Service:
        service = serve(auth="required", **changes)
        service.client.headers["Authorization"] = f"Bearer {key_of(service, 'ann')}"
        return service

    return start


def key_of(service: Service, tenant: str) -> str:
    with service.resources.database.session() as session:
        return keys.create_key(session, tenant, "test")


def upload_in_pieces(service: Service, pieces: int, **headers: str) -> tuple[int, int]:
    """The status of the answer, and how many pieces of 64 KiB were taken before it."""
    head = b'--x\r\nContent-Disposition: form-data; name="archive"; filename="a.zip"\r\n\r\n'
    body = iter([head, *[bytes(2**16)] * pieces])
    taken = -1
    statuses = []

    async def receive() -> Message:
        nonlocal taken
        taken += 1
        return {"type": "http.request", "body": next(body), "more_body": True}

    async def send(message: Message) -> None:
        statuses.append(message.get("status"))

    told = {
        "host": "localhost",
        "content-type": "multipart/form-data; boundary=x",
        "authorization": str(service.client.headers.get("Authorization")),
        **headers,
    }
    scope = {
        "type": "http",
        "scheme": "http",
        "method": "POST",
        "path": "/v1/tasks",
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in told.items()],
    }
    assert service.client.portal is not None
    service.client.portal.call(service.client.app, scope, receive, send)
    return statuses[0], taken


@pytest.mark.usefixtures("clock")
def test_one_request_too_many_is_told_how_long_to_wait(ask: Callable[..., Service]) -> None:
    service = ask(max_reads_per_minute=3)
    for left in (2, 1, 0):
        response = service.client.get("/v1/tasks")
        assert response.status_code == 200
        assert response.headers["RateLimit-Policy"] == '"reads";q=3;w=60'
        assert re.fullmatch(rf'"reads";r={left};t=\d+', response.headers["RateLimit"])
    response = service.client.get("/v1/tasks")
    problem = assert_problem(response, 429, "rate-exceeded")
    assert (problem["rate"], problem["limit"]) == ("reads", 3)
    assert 1 <= int(response.headers["Retry-After"]) == problem["retry_after_seconds"] <= 60
    assert response.headers["RateLimit"].startswith('"reads";r=0;')


@pytest.mark.usefixtures("clock")
def test_kinds_of_requests_and_tenants_are_counted_apart(ask: Callable[..., Service]) -> None:
    service = ask(max_reads_per_minute=1, max_writes_per_minute=1, max_uploads_per_minute=1)
    service.client.get("/v1/tasks")
    assert_problem(service.client.get("/v1/jobs"), 429, "rate-exceeded")
    assert service.send().status_code == 202
    assert_problem(service.send(), 429, "rate-exceeded")
    assert service.client.delete("/v1/tasks/unknown").status_code == 404
    assert_problem(service.client.delete("/v1/tasks/unknown"), 429, "rate-exceeded")
    bob = {"Authorization": f"Bearer {key_of(service, 'bob')}"}
    assert service.client.get("/v1/tasks", headers=bob).status_code == 200


@pytest.mark.usefixtures("clock")
def test_what_is_one_too_many_is_refused_before_its_body_is_read(
    ask: Callable[..., Service],
) -> None:
    service = ask(max_uploads_per_minute=1)
    service.send()
    assert upload_in_pieces(service, 1) == (429, -1)


def test_room_comes_back_little_by_little(clock: SimpleNamespace) -> None:
    counted = Rates({"reads": 10})

    def admitted() -> int:
        told = [counted.count("reads", "ann") for _ in range(20)]
        return sum(left is not None and left.admitted for left in told)

    assert admitted() == 10
    clock.now += 15
    assert admitted() == 0
    clock.now += 60
    assert 1 <= admitted() <= 9
    clock.now += 120
    assert admitted() == 10


def test_without_keys_nothing_of_a_tenant_is_limited(serve: Callable[..., Service]) -> None:
    service = serve(
        max_reads_per_minute=1, max_tenant_tasks=1, max_tenant_queued_jobs=1, max_queued_jobs=9
    )
    for _ in range(2):
        assert service.send().status_code == 202
        response = service.client.get("/v1/usage")
        assert response.status_code == 200
        assert "RateLimit" not in response.headers
    told = response.json()
    assert told["quotas"]["tasks"] == {"used": 2, "limit": None}
    assert told["requests_per_minute"]["reads"] == dict.fromkeys(
        ("limit", "remaining", "reset_seconds")
    )


def test_a_task_more_than_a_tenant_may_have_is_refused_with_what_it_has(
    ask: Callable[..., Service],
) -> None:
    service = ask(max_tenant_tasks=1)
    first = service.send().json()
    problem = assert_problem(service.send(), 403, "quota-exceeded")
    assert (problem["quota"], problem["used"], problem["limit"]) == ("tasks", 1, 1)
    service.client.delete(f"/v1/tasks/{first['id']}")
    assert service.send().status_code == 202


def test_a_repeated_request_is_answered_as_before_though_the_quota_is_used_up(
    ask: Callable[..., Service],
) -> None:
    service = ask(max_tenant_tasks=1, max_tenant_queued_jobs=1, max_queued_jobs=1)
    first = service.send(key="once")
    again = service.send(key="once")
    assert (again.status_code, again.json()) == (202, first.json())
    assert_problem(service.send(key="twice"), 503, "queue-full")


def test_jobs_that_wait_are_limited_until_one_has_started(ask: Callable[..., Service]) -> None:
    service = ask(max_tenant_queued_jobs=1)
    accepted = service.send().json()
    for key in ("", "one"):  # before the body is read, and when it is accepted
        response = service.send(key=key)
        problem = assert_problem(response, 429, "quota-exceeded")
        assert problem["quota"] == "queued_jobs"
        assert int(response.headers["Retry-After"]) > 1
    service.start(accepted["job_id"])
    assert service.send().status_code == 202


def test_bytes_that_do_not_fit_are_refused_and_those_that_are_there_already_do(
    ask: Callable[..., Service],
) -> None:
    service = ask(max_tenant_stored_bytes=len(ARCHIVE) + len(OTHER) - 1)
    assert service.send(ARCHIVE).status_code == 202
    problem = assert_problem(service.send(OTHER), 403, "quota-exceeded")
    assert (problem["quota"], problem["used"]) == ("stored_bytes", len(ARCHIVE))
    assert len(service.blobs()) == 1
    assert service.send(ARCHIVE).status_code == 202
    assert service.client.get("/v1/usage").json()["quotas"]["stored_bytes"] == {
        "used": len(ARCHIVE),
        "limit": len(ARCHIVE) + len(OTHER) - 1,
    }


def test_bytes_that_cannot_fit_are_refused_when_announced_and_else_while_they_come(
    ask: Callable[..., Service],
) -> None:
    service = ask(max_tenant_stored_bytes=300_000)
    announced = {"content-length": str(100 * 2**16)}
    assert upload_in_pieces(service, 100, **announced) == (403, -1)
    assert upload_in_pieces(service, 100) == (403, 7)  # 128 KiB may be no archive
    assert service.blobs() == []


def test_a_queue_that_is_full_answers_unavailable_for_a_while(
    serve: Callable[..., Service],
) -> None:
    service = serve(max_queued_jobs=1)
    service.send()
    for send in (service.send, lambda: service.send(path="/v1/neighbours")):
        response = send()
        assert_problem(response, 503, "queue-full")
        assert int(response.headers["Retry-After"]) > 1
    assert len(service.blobs()) == 1
    vector = {"vector": embedding_of(1).vector.tolist(), "space_id": LIBRARY_SPACE}
    asked = service.client.post("/v1/neighbours", json={**vector, "metric": "cosine"})
    assert asked.status_code == 200, "which waits for no worker"


@pytest.mark.usefixtures("clock")
def test_a_page_is_a_read_and_says_when_to_come_again(ask: Callable[..., Service]) -> None:
    service = ask(max_reads_per_minute=1)
    assert service.client.get("/").headers["RateLimit"].startswith('"reads";r=0;')
    answer = service.client.get("/")
    assert (answer.status_code, answer.headers["content-type"][:9]) == (429, "text/html")
    assert int(answer.headers["Retry-After"]) >= 1


@pytest.mark.parametrize(
    ("asked", "size", "given"),
    [(None, 10**6, "normal"), (None, 0, "low"), ("low", 10**6, "low"), ("normal", 0, "normal")],
)
def test_a_small_archive_goes_before_a_large_one_and_one_may_say_so(
    serve: Callable[..., Service], asked: str | None, size: int, given: str
) -> None:
    service = serve(small_archive_bytes=size)
    job_id = service.send(priority=asked).json()["job_id"]
    assert service.client.get(f"/v1/jobs/{job_id}").json()["priority"] == given


def test_high_priority_is_for_small_archives_and_queries(serve: Callable[..., Service]) -> None:
    service = serve(small_archive_bytes=len(ARCHIVE))
    job_ids = [service.send(priority="high").json()["job_id"]]
    job_ids.append(service.send(path="/v1/neighbours").json()["job_id"])
    for job_id in job_ids:
        assert service.client.get(f"/v1/jobs/{job_id}").json()["priority"] == "high"
    larger = archive_of({f"cat/{i}.png": b"x" for i in range(9)})
    assert_problem(service.send(larger, priority="high"), 422, "priority-not-allowed")
    assert_problem(service.send(priority="highest"), 422, "request-invalid")
