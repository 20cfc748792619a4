"""The client against a server that loses answers, breaks streams and pushes back."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.client import Client, ProblemAnswered, ServerUnreachable
from app.errors import InvalidRequest, NotFound, Unavailable

Handler = Callable[[httpx.Request], httpx.Response]


class Server:
    """Answers with `handler`, after failing in the ways listed; keeps what it was asked."""

    def __init__(self, handler: Handler, *failures: Exception | httpx.Response) -> None:
        self.handler = handler
        self.failures = list(failures)
        self.requests: list[httpx.Request] = []
        self.bodies: list[bytes] = []
        self.pauses: list[float] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        self.bodies.append(request.read())
        if self.failures:
            failure = self.failures.pop(0)
            if isinstance(failure, Exception):
                raise failure
            return failure
        return self.handler(request)

    def client(self, key: str | None = None) -> Client:
        transport = httpx.MockTransport(self)
        return Client("http://server", key, transport=transport, sleep=self.pauses.append)


def answer(body: Any, status: int = 200) -> Handler:
    return lambda _request: httpx.Response(status, json=body)


def lost() -> Exception:
    return httpx.ReadError("connection reset")


def test_a_post_whose_answer_was_lost_is_repeated_under_the_same_key() -> None:
    server = Server(answer({"id": "t"}, 202), lost(), httpx.Response(503))
    with server.client() as client:
        assert client.post("/v1/distances", {"tasks": ["a"]}) == {"id": "t"}
    keys = [request.headers["Idempotency-Key"] for request in server.requests]
    assert len(keys) == 3
    assert len(set(keys)) == 1
    assert len(set(server.bodies)) == 1


def test_two_posts_carry_two_keys() -> None:
    server = Server(answer({}))
    with server.client() as client:
        client.post("/v1/distances", {})
        client.post("/v1/distances", {})
    first, second = (request.headers["Idempotency-Key"] for request in server.requests)
    assert first != second


def test_an_upload_that_broke_off_is_sent_again_from_its_beginning(tmp_path: Path) -> None:
    archive = tmp_path / "set.zip"
    archive.write_bytes(b"PK" + bytes(200_000))
    server = Server(answer({"id": "t", "job_id": "j"}, 202), lost())
    sent: list[int] = []
    with server.client() as client:
        client.upload("/v1/tasks", archive, {"name": "set"}, on_sent=sent.append)
    assert len(server.bodies) == 2
    for body in server.bodies:
        assert archive.read_bytes() in body
        assert b'{"name": "set"}' in body
        assert b'filename="set.zip"' in body
    assert max(sent) == archive.stat().st_size


def test_a_folder_is_uploaded_as_a_zip_named_after_it(tmp_path: Path) -> None:
    (tmp_path / "birds" / "owl").mkdir(parents=True)
    (tmp_path / "birds" / "owl" / "a.png").write_bytes(b"pixels")
    server = Server(answer({"id": "t", "job_id": "j"}, 202), lost())
    with server.client() as client:
        client.upload("/v1/tasks", tmp_path / "birds", {})
    for body in server.bodies:
        assert b'filename="birds.zip"' in body
        assert b"owl/a.png" in body


def test_a_server_that_never_answers_is_unreachable_after_a_few_attempts() -> None:
    server = Server(answer({}), *(httpx.ConnectError("refused") for _ in range(9)))
    with server.client() as client, pytest.raises(ServerUnreachable) as raised:
        client.get("/v1/tasks")
    assert len(server.requests) == 4
    assert server.pauses == [0.2, 0.4, 0.8]
    assert "http://server" in str(raised.value)
    assert "--server" in raised.value.remedy


def test_retry_after_decides_the_pause() -> None:
    server = Server(answer({"ok": True}), httpx.Response(429, headers={"Retry-After": "7"}))
    with server.client() as client:
        assert client.get("/v1/tasks") == {"ok": True}
    assert server.pauses == [7.0]


def test_retry_after_may_be_a_date() -> None:
    date = formatdate(time.time() + 600, usegmt=True)
    server = Server(answer({"ok": True}), httpx.Response(503, headers={"Retry-After": date}))
    with server.client() as client:
        client.get("/v1/tasks")
    (pause,) = server.pauses
    assert 0 < pause <= 600


def test_a_problem_document_is_told_on_and_not_repeated() -> None:
    problem = {
        "type": "/problems/folder-empty",
        "title": "Refused",
        "status": 422,
        "detail": "No images.",
        "remedy": "Send some.",
    }
    server = Server(answer(problem, 422))
    with server.client() as client, pytest.raises(ProblemAnswered) as raised:
        client.get("/v1/tasks")
    assert len(server.requests) == 1
    assert raised.value.code == "folder-empty"
    assert str(raised.value) == "No images. Send some."
    assert raised.value.problem() == problem


def test_the_fields_that_do_not_fit_are_named() -> None:
    errors = [{"field": f"metadata.{n}", "message": "too long"} for n in ("name", "a", "b", "c")]
    problem = ProblemAnswered({"detail": "These do not fit.", "remedy": "See", "errors": errors})
    assert str(problem) == (
        "metadata.name: too long; metadata.a: too long; metadata.b: too long; and more."
    )


def test_an_error_that_is_no_problem_document_still_names_its_status() -> None:
    server = Server(lambda _request: httpx.Response(418, text="<html>"))
    with server.client() as client, pytest.raises(ProblemAnswered, match="418"):
        client.get("/v1/tasks")


def test_the_key_travels_as_a_bearer_token() -> None:
    server = Server(answer({}))
    with server.client("t2v_secret") as client:
        client.get("/v1/tasks")
    assert server.requests[0].headers["Authorization"] == "Bearer t2v_secret"


@pytest.mark.parametrize("address", ["localhost:8000", "http://localhost:port", "http://[::1"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(InvalidRequest, match="no server address"):
        Client(address)


def test_a_page_of_some_other_server_is_told_of() -> None:
    server = Server(lambda _request: httpx.Response(200, text="<html>"))
    with server.client() as client, pytest.raises(Unavailable, match="no JSON"):
        client.get("/v1/tasks")


def test_pages_are_followed_to_the_last_and_empty_parameters_left_out() -> None:
    pages: dict[str | None, Any] = {
        None: {"items": [{"n": 1}, {"n": 2}], "next_cursor": "c"},
        "c": {"items": [{"n": 3}], "next_cursor": None},
    }
    server = Server(
        lambda request: httpx.Response(200, json=pages[request.url.params.get("cursor")])
    )
    with server.client() as client:
        assert [item["n"] for item in client.pages("/v1/tasks", tag=None)] == [1, 2, 3]
    assert "tag" not in server.requests[0].url.params


# --- tasks by id or name


def tasks_of(*named: tuple[str, str]) -> Handler:
    items = [{"id": task_id, "name": name, "status": "ready"} for task_id, name in named]

    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/tasks":
            asked = request.url.params
            begins = asked.get("id_prefix", "")
            found = [
                item
                for item in items
                if asked.get("q", "") in item["name"] and item["id"].startswith(begins)
            ]
            return httpx.Response(200, json={"items": found, "next_cursor": None})
        task_id = request.url.path.removeprefix("/v1/tasks/")
        for item in items:
            if item["id"] == task_id:
                return httpx.Response(200, json=item)
        return httpx.Response(404, json={"status": 404, "detail": "no", "remedy": ""})

    return handler


def test_a_task_is_found_by_its_id_before_any_name() -> None:
    with Server(tasks_of(("a1", "b2"), ("b2", "birds"))).client() as client:
        assert client.find_task("b2")["name"] == "birds"


def test_a_task_is_found_by_its_whole_name_only() -> None:
    with Server(tasks_of(("a1", "birds"), ("b2", "birds of prey"))).client() as client:
        assert client.find_task("birds")["id"] == "a1"
        with pytest.raises(NotFound):
            client.find_task("bird")


def test_a_name_that_two_tasks_have_lists_their_ids() -> None:
    with (
        Server(tasks_of(("a1", "birds"), ("b2", "birds"))).client() as client,
        pytest.raises(InvalidRequest, match="a1, b2"),
    ):
        client.find_task("birds")


# --- following a job


def progress(state: str, done: int) -> dict[str, Any]:
    return {"state": state, "phase": "features", "done": done, "total": 9}


class BrokenStream(httpx.SyncByteStream):
    def __iter__(self) -> Iterator[bytes]:
        yield event(progress("running", 1))
        raise httpx.ReadError("connection reset")


def event(body: Any) -> bytes:
    return f": ping\n\nevent: progress\nid: 1\ndata: {json.dumps(body)}\n\n".encode()


def test_a_stream_that_breaks_is_taken_up_again_until_the_final_state() -> None:
    streams: list[Any] = [
        {"stream": BrokenStream()},
        {"content": event(progress("running", 5))},  # ends early
        {"content": event(progress("running", 7)) + event(progress("succeeded", 9))},
    ]
    server = Server(lambda _request: httpx.Response(200, **streams.pop(0)), lost())
    with server.client() as client:
        seen = [step["done"] for step in client.follow("j")]
    assert seen == [1, 5, 7, 9]
    assert len(server.requests) == 4


def test_a_job_that_is_gone_is_a_problem_not_an_endless_loop() -> None:
    server = Server(answer({"status": 404, "detail": "No such job.", "remedy": ""}, 404))
    with server.client() as client, pytest.raises(ProblemAnswered, match="No such job"):
        list(client.follow("j"))


def test_a_stream_that_never_says_anything_ends_as_unreachable() -> None:
    server = Server(lambda _request: httpx.Response(200, content=b""))
    with server.client() as client, pytest.raises(ServerUnreachable):
        list(client.follow("j"))
    assert len(server.requests) == 12
