"""Health, keys, hosts and origins, and the problems that no route of its own tells."""

from __future__ import annotations

import errno
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest
from psycopg import errors
from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as NoFreeConnection

from app.errors import Unavailable
from app.store import cards, keys
from tests.api.conftest import ARCHIVE, Service, assert_problem


def test_it_is_ready_once_a_worker_has_warmed_up(service: Service) -> None:
    assert service.client.get("/healthz").json()["status"] == "ok"
    waiting = service.client.get("/readyz")
    assert waiting.status_code == 503
    assert "worker" in waiting.json()["reasons"][0]
    service.warm_up()
    assert service.client.get("/readyz").json() == {"ready": True, "reasons": []}


def test_without_a_valid_key_a_server_that_asks_for_keys_answers_nothing(
    serve: Callable[..., Service],
) -> None:
    service = serve(auth="required")
    for headers, code in (
        ({}, "key-missing"),
        ({"Authorization": "Bearer t2v_wrong"}, "key-unknown"),
        ({"Authorization": "Basic dXNlcjpwYXNz"}, "key-missing"),
    ):
        answer = service.client.get("/v1/tasks", headers=headers)
        assert_problem(answer, 401, code)
        assert answer.headers["www-authenticate"] == "Bearer"
    upload = service.client.post("/v1/tasks", files={"archive": ("a.zip", ARCHIVE)})
    assert_problem(upload, 401, "key-missing")
    assert service.client.get("/healthz").status_code == 200


def test_tenants_do_not_see_each_other(serve: Callable[..., Service]) -> None:
    service = serve(auth="required")
    with service.resources.database.session() as session:
        secrets = [keys.create_key(session, tenant, "test") for tenant in ("ann", "bob")]
    ann, bob = ({"Authorization": f"Bearer {secret}"} for secret in secrets)
    files = {"archive": ("a.zip", ARCHIVE)}
    accepted = service.client.post("/v1/tasks", files=files, headers=ann).json()
    address = f"/v1/tasks/{accepted['id']}"
    assert service.client.get(address, headers=ann).status_code == 200
    assert_problem(service.client.get(address, headers=bob), 404, "unknown-task")
    assert_problem(service.client.delete(address, headers=bob), 404, "unknown-task")
    job = f"/v1/jobs/{accepted['job_id']}"
    assert_problem(service.client.get(job, headers=bob), 404, "unknown-job")
    assert service.client.get("/v1/tasks", headers=bob).json()["items"] == []


def test_a_host_name_that_is_not_this_machine_is_refused(service: Service) -> None:
    answer = service.client.get("/v1/tasks", headers={"host": "rebound.example"})
    assert_problem(answer, 400, "untrusted-host")
    for host in ("127.0.0.1:8000", "[::1]:8000", "localhost"):
        assert service.client.get("/healthz", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:9999"])
def test_a_web_page_of_another_origin_cannot_change_anything(service: Service, origin: str) -> None:
    files = {"archive": ("a.zip", ARCHIVE)}
    answer = service.client.post("/v1/tasks", files=files, headers={"origin": origin})
    assert_problem(answer, 403, "foreign-origin")
    assert service.blobs() == []


def test_a_page_of_the_servers_own_may_post(service: Service) -> None:
    files = {"archive": ("a.zip", ARCHIVE)}
    answer = service.client.post("/v1/tasks", files=files, headers={"origin": "http://localhost"})
    assert answer.status_code == 202


def test_unknown_routes_and_methods_are_problems(service: Service) -> None:
    assert_problem(service.client.get("/v1/nothing"), 404, "unknown-route")
    assert_problem(service.client.get("/v1/tasks/"), 404, "unknown-route")
    answer = service.client.put("/v1/tasks", json={})
    assert_problem(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == "GET, POST"


def test_an_unknown_query_parameter_is_told_with_those_that_exist(service: Service) -> None:
    problem = assert_problem(
        service.client.get("/v1/tasks", params={"page": 2}), 422, "unknown-parameter"
    )
    assert "cursor, id_prefix, library, limit, q, status, tag" in problem["remedy"]


def test_a_field_whose_name_is_no_text_is_told_like_any_other(service: Service) -> None:
    answer = service.client.post(
        "/v1/distances",
        content='{"tasks": ["x"], "\\ud800": 1}',
        headers={"content-type": "application/json"},
    )
    assert_problem(answer, 422, "request-invalid")


def test_an_unexpected_failure_tells_nothing_of_its_inside(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("the password is secret")

    monkeypatch.setattr(cards, "list_cards", fail)
    answer = service.client.get("/v1/probes")
    assert_problem(answer, 500, "internal-error")
    assert "password" not in answer.text


def test_a_database_that_does_not_answer_is_a_matter_of_trying_again(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = sqlite3.OperationalError("database is locked")
    locked.sqlite_errorcode = sqlite3.SQLITE_BUSY_SNAPSHOT
    for error in (
        OperationalError("SELECT 1", {}, locked),
        OperationalError("SELECT 1", {}, Exception("gone"), connection_invalidated=True),
        NoFreeConnection("QueuePool limit reached"),
    ):
        monkeypatch.setattr(cards, "list_cards", Mock(side_effect=error))
        answer = service.client.get("/v1/probes")
        assert_problem(answer, 503, "store-unavailable")
        assert answer.headers["retry-after"]


def test_a_postgresql_that_is_not_there_or_in_the_way_is_a_matter_of_trying_again(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OperationalError) as nobody:
        create_engine("postgresql+psycopg://127.0.0.1:1/none").connect()
    for error, status in (
        (nobody.value, 503),
        (OperationalError("SELECT 1", {}, errors.DeadlockDetected()), 503),
        (OperationalError("SELECT 1", {}, errors.TooManyConnections()), 503),
        (OperationalError("SELECT 1", {}, errors.AdminShutdown()), 503),
        (OperationalError("SELECT 1", {}, errors.UndefinedFile()), 500),
    ):
        monkeypatch.setattr(cards, "list_cards", Mock(side_effect=error))
        assert service.client.get("/v1/probes").status_code == status


def test_a_full_disk_is_told_as_such_whoever_met_it(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = sqlite3.OperationalError("database or disk is full")
    full.sqlite_errorcode = sqlite3.SQLITE_FULL
    for error in (
        OperationalError("SELECT 1", {}, full),
        OperationalError("SELECT 1", {}, errors.DiskFull()),
        OSError(errno.ENOSPC, "No space left on device"),
    ):
        monkeypatch.setattr(cards, "list_cards", Mock(side_effect=error))
        answer = service.client.get("/v1/probes")
        assert_problem(answer, 503, "no-space")
        assert answer.headers["retry-after"]
    monkeypatch.setattr(cards, "list_cards", Mock(side_effect=OSError(errno.EIO, "broken")))
    assert_problem(service.client.get("/v1/probes"), 500, "internal-error")


def test_archives_that_cannot_be_stored_now_may_be_sent_again(
    serve: Callable[..., Service], s3: str
) -> None:
    service = serve(blob_url=f"{s3}-that-nobody-made/tasks")
    answer = service.send()
    assert_problem(answer, 503, "blobs-unavailable")
    assert answer.headers["retry-after"]
    assert service.client.get("/v1/tasks").json()["items"] == []


def test_a_task_is_deleted_though_its_archive_cannot_be_just_now(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    task_id = service.send().json()["id"]
    away = Unavailable("blobs-unavailable", "The store of archives did not answer.", "Try again.")
    monkeypatch.setattr(type(service.resources.blobs), "delete", Mock(side_effect=away))
    assert service.client.delete(f"/v1/tasks/{task_id}").status_code == 204
    assert service.client.get(f"/v1/tasks/{task_id}").status_code == 404
    assert "blobs.left" in caplog.text


def test_a_database_that_fails_for_good_is_an_internal_error_with_its_traceback_in_the_log(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken = sqlite3.OperationalError("disk I/O error")
    broken.sqlite_errorcode = sqlite3.SQLITE_IOERR
    failure = OperationalError("SELECT 1", {}, broken)
    monkeypatch.setattr(cards, "list_cards", Mock(side_effect=failure))
    assert_problem(service.client.get("/v1/probes"), 500, "internal-error")
    assert [record.exc_info[1] for record in caplog.records if record.exc_info] == [failure]


def test_what_does_not_fit_is_told_in_words(service: Service) -> None:
    def told(path: str, content: str) -> dict[str, str]:
        answer = service.client.post(
            path, content=content, headers={"content-type": "application/json"}
        )
        errors = assert_problem(answer, 422, "request-invalid")["errors"]
        return {error["field"]: error["message"] for error in errors}

    run = f"/v1/finetunes/{'0' * 32}/candidate"
    assert told(run, '{"name": "Birds"}') == {
        "name": "takes 100 or fewer of small letters, digits, '.', '_' and '-', a letter or digit "
        "first"
    }
    tasks = {"tags": ["", "x" * 101, "a\nb"], "colour": 1}
    answer = service.client.patch("/v1/tasks/x", json=tasks)
    errors = assert_problem(answer, 422, "request-invalid")["errors"]
    assert [error["message"] for error in errors] == [
        "takes 1 or more characters",
        "takes 100 or fewer characters",
        "takes no control characters",
        "is no field here",
    ]
    assert told("/v1/distances", "{}") == {"tasks": "is missing"}
    vector = '{"task": "t", "model": "m", "metric": "accuracy", "value": NaN}'
    assert told("/v1/outcomes", vector)["value"] == "takes a finite number"


def test_of_many_errors_the_first_are_told_and_the_rest_counted(service: Service) -> None:
    body = {"tags": ["", *["x" * 101] * 29], "name": "n" * 300, "y" * 5000: 1}
    task_id = service.send().json()["id"]
    answer = service.client.patch(f"/v1/tasks/{task_id}", json=body)
    problem = assert_problem(answer, 422, "request-invalid")
    assert (len(problem["errors"]), problem["more_errors"]) == (20, 12)
    assert "xxx" not in answer.text
    many = {f"field {n}": 1 for n in range(1001)}
    problem = assert_problem(
        service.client.patch(f"/v1/tasks/{task_id}", json=many), 422, "request-invalid"
    )
    assert [error["field"] for error in problem["errors"]] == ["body"]
    answer = service.client.patch(f"/v1/tasks/{task_id}", json={"y" * 5000: 1})
    assert len(answer.content) < 2000


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
def test_the_pages_about_the_service_load_nothing_from_elsewhere(
    service: Service, page: str
) -> None:
    answer = service.client.get(page)
    assert answer.headers["content-type"].startswith("text/html")
    assert not re.findall(r"(?:https?:)?//[a-z][\w.-]*\.", answer.text)
    assert answer.headers["content-security-policy"].startswith("default-src 'self'; ")
    assets = re.findall(r'(?:src|href)="([^"]+)"', answer.text)
    assert any(address.endswith(".js") for address in assets)
    for address in (*assets, "/openapi.json"):
        assert service.client.get(address).status_code == 200, address
    assert not [
        path for path in service.client.get("/openapi.json").json()["paths"] if page in path
    ]
    assert_problem(service.client.get(page, headers={"host": "far.example"}), 400, "untrusted-host")


def test_the_pages_about_the_service_ask_for_no_key(serve: Callable[..., Service]) -> None:
    service = serve(auth="required")
    for address in ("/docs", "/redoc", "/docs/assets/swagger-ui.css"):
        assert service.client.get(address).status_code == 200


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/tasks", 200),
        ("/v1/nothing", 404),
        ("/v1/tasks?page=2", 422),
        ("/v1/probes", 500),
        ("/healthz", 200),
        ("/docs", 200),
        ("/docs/assets/swagger-ui.css", 200),
    ],
)
def test_every_answer_says_how_browsers_are_to_take_it(
    service: Service, monkeypatch: pytest.MonkeyPatch, path: str, status: int
) -> None:
    monkeypatch.setattr(cards, "list_cards", Mock(side_effect=RuntimeError))
    answer = service.client.get(path)
    assert answer.status_code == status
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert "camera=()" in answer.headers["permissions-policy"]
    policy = answer.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in policy
    assert policy.startswith("default-src 'self'" if path == "/docs" else "default-src 'none'")
    assert answer.headers.get("cache-control") == ("no-store" if "/v1" in path else None)
    assert "strict-transport-security" not in answer.headers


def test_a_host_that_is_refused_and_a_body_too_large_are_answered_no_less_carefully(
    service: Service,
) -> None:
    far = service.client.get("/v1/tasks", headers={"host": "rebound.example"})
    large = service.client.post("/v1/distances", content=b" " * (2**20 + 1))
    assert (far.status_code, large.status_code) == (400, 413)
    for answer in (far, large):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"


def test_behind_https_browsers_are_told_to_stay_there(service: Service) -> None:
    answer = service.client.get("https://localhost/v1/tasks")
    assert answer.headers["strict-transport-security"].startswith("max-age=")


def test_events_are_kept_by_nobody(service: Service) -> None:
    accepted = service.send().json()
    service.client.delete(f"/v1/jobs/{accepted['job_id']}")
    answer = service.client.get(f"/v1/jobs/{accepted['job_id']}/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-store"


COUNT_THREADS = """
import sys
from pathlib import Path
from fastapi.testclient import TestClient
from threadpoolctl import threadpool_info
from app.api.main import create_app
from app.settings import Settings

def of_blas():  # numpy and scipy each bring their own
    return {p["num_threads"] for p in threadpool_info() if p.get("threading_layer") == "pthreads"}

print(*of_blas())
with TestClient(create_app(Settings(data_dir=Path(sys.argv[1])))):
    print(*of_blas())
"""


def test_products_of_requests_run_on_one_thread_each(tmp_path: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-c", COUNT_THREADS, str(tmp_path)],
        env={**os.environ, "OMP_NUM_THREADS": "2"},
        stdout=subprocess.PIPE,
        check=True,
    )
    assert told.stdout.split() == [b"2", b"1"]
