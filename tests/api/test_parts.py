"""Large archives put into the store by their client, part by part: S3 itself takes them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select, update

from app.api import parts
from app.errors import Unavailable
from app.jobs.housekeeping import housekeep
from app.store import keys
from app.store.blobs import UNAVAILABLE
from app.store.tables import Archive, Task, Upload, now
from tests.api.conftest import Service, archive_of, assert_problem

pytestmark = pytest.mark.engines("servers")

PART_BYTES = 5 * 2**20  # S3 takes no smaller ones
BIG = archive_of({"cat/1.png": os.urandom(PART_BYTES), "dog/2.png": b"second"})


def pieces(archive: bytes) -> list[bytes]:
    return [archive[at : at + PART_BYTES] for at in range(0, len(archive), PART_BYTES)]


def asked(archive: bytes = BIG, **changes: Any) -> dict[str, Any]:
    return {
        "filename": "animals.zip",
        "size_bytes": len(archive),
        "sha256": hashlib.sha256(archive).hexdigest(),
        "part_bytes": PART_BYTES,
        "parts": [hashlib.sha256(piece).hexdigest() for piece in pieces(archive)],
        **changes,
    }


def begin(service: Service, archive: bytes = BIG, **changes: Any) -> dict[str, Any]:
    answer = service.client.post("/v1/uploads", json=asked(archive, **changes))
    assert answer.status_code in (200, 201), answer.text
    begun: dict[str, Any] = answer.json()
    assert answer.headers["location"] == begun["links"]["self"]
    return begun


def put(begun: dict[str, Any], archive: bytes = BIG, only: set[int] | None = None) -> None:
    for part in begun["missing"]:
        if only is None or part["number"] in only:
            body = pieces(archive)[part["number"] - 1]
            answer = httpx.put(part["url"], content=body, headers=part["headers"])
            assert answer.status_code == 200, answer.text


def complete(service: Service, begun: dict[str, Any], **headers: str) -> Any:
    return service.client.post(begun["links"]["complete"], headers=headers)


def in_store(service: Service) -> tuple[list[str], list[str]]:
    """Keys of objects that are no blobs, and of unfinished uploads."""
    bucket = service.resources.blobs._bucket
    listed = bucket.listed("list_objects_v2", "incoming/", "Contents")
    unfinished = bucket.listed("list_multipart_uploads", "", "Uploads")
    return [each["Key"] for each in listed], [each["Key"] for each in unfinished]


def test_a_callback_is_judged_before_anything_is_sent_and_asked_for_with_the_task(
    serve: Callable[..., Service],
) -> None:
    url = "https://hooks.example/done"
    service = serve(callback_prefixes=("https://hooks.example/",))
    for refused, code in ((url, "callback-secret-missing"), ("https://x.example", "callback-not")):
        answer = service.client.post("/v1/uploads", json=asked(callback_url=refused))
        assert answer.status_code in (403, 409)
        assert code in answer.json()["type"]
    service.client.post("/v1/callback-secret")
    begun = begin(service, callback_url=url)
    put(begun)
    job_id = complete(service, begun).json()["job_id"]
    callback = service.client.get(f"/v1/jobs/{job_id}").json()["callback"]
    assert (callback["url"], callback["state"]) == (url, "pending")


def test_an_archive_that_came_in_parts_becomes_a_task(service: Service) -> None:
    begun = begin(service, name="animals", tags=["a"])
    assert [part["number"] for part in begun["missing"]] == [1, 2]
    put(begun)
    assert service.client.get(begun["links"]["self"]).json()["missing"] == []
    assert service.blobs() == []
    answer = complete(service, begun)
    assert answer.status_code == 202, answer.text
    accepted = answer.json()
    assert answer.headers["location"] == f"/v1/tasks/{accepted['id']}"
    task = service.client.get(f"/v1/tasks/{accepted['id']}").json()
    assert (task["name"], task["tags"], task["status"]) == ("animals", ["a"], "queued")
    assert task["job_id"] == accepted["job_id"]
    assert service.blobs() == [begun["sha256"]]
    with service.resources.blobs.open(begun["sha256"]) as stream:
        assert stream.read() == BIG
    assert in_store(service) == ([], [])


def test_completed_again_it_is_the_same_task(service: Service) -> None:
    begun = begin(service)
    put(begun)
    answers = [complete(service, begun, **{"Idempotency-Key": key}) for key in ("a", "a", "b")]
    assert [answer.status_code for answer in answers] == [202] * 3
    assert len({answer.text for answer in answers}) == 1
    assert answers[1].headers["idempotency-replayed"] == "true"
    with service.resources.database.session(read_only=True) as session:
        assert session.scalar(select(func.count(Task.seq)).where(Task.tenant == "local")) == 1
    assert service.client.get(begun["links"]["self"]).json()["task_id"] == answers[0].json()["id"]


def test_an_upload_that_was_interrupted_goes_on_when_it_is_asked_for_again(
    service: Service,
) -> None:
    begun = begin(service)
    put(begun, only={2})
    problem = assert_problem(complete(service, begun), 409, "upload-incomplete")
    assert "1 of 2" in problem["detail"]
    again = begin(service)
    assert again["id"] == begun["id"]
    assert [part["number"] for part in again["missing"]] == [1]
    other = begin(service, name="something else")
    assert (other["id"] != begun["id"], len(other["missing"])) == (True, 2)
    put(again)
    assert complete(service, again).status_code == 202


def test_a_part_is_signed_for_with_its_digest(service: Service) -> None:
    """S3 refuses other bytes under that header, and other headers under that signature."""
    for part in begin(service)["missing"]:
        query = httpx.URL(part["url"]).params
        assert query["X-Amz-SignedHeaders"] == "host;x-amz-checksum-sha256"
        assert part["headers"].keys() == {"x-amz-checksum-sha256"}


def test_damaged_bytes_are_refused_and_nothing_of_them_kept(service: Service) -> None:
    begun = begin(service)
    put(begun, BIG[:-9] + b"otherwise")  # a store that does not look at checksums, as moto
    assert_problem(complete(service, begun), 422, "upload-damaged")
    assert (service.blobs(), in_store(service)) == ([], ([], []))
    assert_problem(complete(service, begun), 404, "unknown-upload")


@pytest.mark.parametrize(
    ("archive", "status", "code"),
    [(b"%PDF-1.7", 415, "archive-unsupported"), (archive_of({}), 422, "archive-empty")],
)
def test_what_is_no_archive_is_refused_as_it_is_by_post_tasks(
    service: Service, archive: bytes, status: int, code: str
) -> None:
    begun = begin(service, archive)
    put(begun, archive)
    assert_problem(complete(service, begun), status, code)
    assert (service.blobs(), in_store(service)) == ([], ([], []))
    assert service.client.get("/v1/tasks").json()["items"] == []


def test_what_does_not_fit_is_refused_before_anything_is_sent(
    serve: Callable[..., Service],
) -> None:
    service = serve(max_upload_bytes=len(BIG))

    def post(**changes: Any) -> Any:
        return service.client.post("/v1/uploads", json=asked(**changes))

    assert_problem(post(size_bytes=len(BIG) + 1), 413, "archive-too-large")
    assert_problem(post(parts=["0" * 64]), 422, "parts-misfit")
    assert_problem(post(probe="nobodys"), 422, "unknown-card")
    for wrong in ({"part_bytes": 1}, {"sha256": "x"}, {"size_bytes": 0}, {"source": "file:///x"}):
        assert_problem(post(**wrong), 422, "request-invalid")
    assert in_store(service) == ([], [])


def test_an_upload_can_be_called_off(service: Service) -> None:
    begun = begin(service)
    put(begun, only={1})
    assert service.client.delete(begun["links"]["self"]).status_code == 204
    assert in_store(service) == ([], [])
    for answer in (
        service.client.get(begun["links"]["self"]),
        service.client.delete(begun["links"]["self"]),
        complete(service, begun),
    ):
        assert_problem(answer, 404, "unknown-upload")


@pytest.fixture
def two_tenants(serve: Callable[..., Service]) -> Iterator[tuple[Service, dict[str, Any]]]:
    service = serve(auth="required")
    with service.resources.database.session() as session:
        headers = {
            tenant: {"Authorization": f"Bearer {keys.create_key(session, tenant, 'key')}"}
            for tenant in ("ours", "theirs")
        }
    yield service, headers


def test_another_tenant_neither_sees_completes_nor_calls_off_an_upload(
    two_tenants: tuple[Service, dict[str, Any]],
) -> None:
    service, headers = two_tenants
    begun = service.client.post("/v1/uploads", json=asked(), headers=headers["ours"]).json()
    put(begun)
    links = begun["links"]
    for answer in (
        service.client.get(links["self"], headers=headers["theirs"]),
        service.client.delete(links["self"], headers=headers["theirs"]),
        service.client.post(links["complete"], headers=headers["theirs"]),
    ):
        assert_problem(answer, 404, "unknown-upload")
    theirs = service.client.post("/v1/uploads", json=asked(), headers=headers["theirs"]).json()
    assert theirs["id"] != begun["id"]
    assert len(theirs["missing"]) == 2
    assert service.client.post(links["complete"], headers=headers["ours"]).status_code == 202


def test_a_completion_that_fails_half_way_can_be_asked_for_again(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parts are joined, and no task is there; then the store is away for the copy; then not."""
    begun = begin(service)
    put(begun)
    away = Unavailable(UNAVAILABLE, "It does not answer.", "Wait.")

    def fail(*_: object) -> None:
        raise away

    with monkeypatch.context() as patch:
        patch.setattr(type(service.resources.blobs.incoming), "accept", fail)
        assert_problem(complete(service, begun), 503, UNAVAILABLE)
    assert service.client.get("/v1/tasks").json()["items"] == []
    assert service.client.get(begun["links"]["self"]).json()["missing"] == []
    with monkeypatch.context() as patch:
        patch.setattr(parts, "accept_task", fail)
        assert_problem(complete(service, begun), 503, UNAVAILABLE)
    assert service.blobs() == [], "nobody needs it yet"
    assert begin(service)["id"] == begun["id"]
    assert complete(service, begun).status_code == 202
    assert service.blobs() == [begun["sha256"]]


def test_what_another_request_completed_meanwhile_is_answered_alike(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = begin(service)
    put(begun)
    first: list[Any] = []
    opened = type(service.resources.blobs.incoming).open

    def overtaken(*arguments: Any) -> Any:
        if not first:
            first.append(None)
            first[0] = complete(service, begun)
        return opened(*arguments)

    monkeypatch.setattr(type(service.resources.blobs.incoming), "open", overtaken)
    second = complete(service, begun)
    assert (second.status_code, second.json()) == (202, first[0].json())
    with service.resources.database.session(read_only=True) as session:
        assert session.scalar(select(func.count(Archive.sha256))) == 1


def test_housekeeping_forgets_what_was_never_completed(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoEngine:
        def forget_ended(self, before: object) -> None: ...

    put(begin(service), only={1})
    joined = begin(service, name="joined")
    put(joined)
    row = parts._row(service.resources, "local", joined["id"])
    parts._join(service.resources.blobs.incoming, row)
    assert [len(found) for found in in_store(service)] == [1, 1]
    with service.resources.database.session() as session:
        session.execute(update(Upload).values(created_at=now() - timedelta(days=2)))
    # Of objects moto says when they came; of uploads, that they began in 2010.
    monkeypatch.setattr("app.jobs.housekeeping.UPLOAD_SECONDS", -60.0)
    resources = service.resources
    housekeep(resources.settings, resources.database, resources.blobs, NoEngine())
    assert in_store(service) == ([], [])
    assert_problem(service.client.get(joined["links"]["self"]), 404, "unknown-upload")


@pytest.mark.engines("embedded")
def test_a_store_on_disk_says_where_to_send_the_archive_instead(service: Service) -> None:
    problem = assert_problem(
        service.client.post("/v1/uploads", json=asked()), 409, "uploads-not-offered"
    )
    assert "POST /v1/tasks" in problem["remedy"]


def test_clients_are_sent_to_the_address_at_which_they_reach_the_store(
    serve: Callable[..., Service],
) -> None:
    service = serve(blob_public_url="https://store.example")
    for part in begin(service)["missing"]:
        assert part["url"].startswith("https://store.example/task2vec/")
