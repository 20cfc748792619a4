"""How much may be asked at once: nothing is unbounded, the largest is taken and one more is not."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from app.api.bodies import MAX_JSON_BYTES
from app.api.main import create_app
from app.server import Server
from app.settings import Settings
from tests.api.conftest import ARCHIVE, Service, assert_problem

DOCUMENT = create_app(Settings()).openapi()


def inputs() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every parameter and body of every route, with its schema."""
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            here = f"{method.upper()} {path}"
            for parameter in operation.get("parameters", []):
                yield f"{here} {parameter['in']} {parameter['name']}", parameter["schema"]
            for body in operation.get("requestBody", {}).get("content", {}).values():
                yield f"{here} body", body["schema"]


def unbounded(where: str, schema: dict[str, Any], within: tuple[str, ...] = ()) -> Iterator[str]:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        if name not in within:
            schema = DOCUMENT["components"]["schemas"][name]
            yield from unbounded(where, schema, (*within, name))
        return
    for alternative in (
        *schema.get("anyOf", ()),
        *schema.get("oneOf", ()),
        *schema.get("allOf", ()),
    ):
        yield from unbounded(where, alternative, within)
    kind = schema.get("type")
    if kind == "array":
        if "maxItems" not in schema:
            yield f"{where}: any number of items"
        yield from unbounded(f"{where}[]", schema.get("items", {}), within)
    if kind == "integer" and not {"maximum", "exclusiveMaximum", "enum", "const"} & schema.keys():
        yield f"{where}: a number of any size"
    for name, field in schema.get("properties", {}).items():
        yield from unbounded(f"{where}.{name}", field, within)
    more = schema.get("additionalProperties")
    if isinstance(more, dict) and "maxProperties" not in schema:
        yield f"{where}: any number of fields"


def test_lists_and_numbers_that_may_be_sent_are_bounded() -> None:
    """Texts are by the size of head and body."""
    asked = list(inputs())
    assert len(asked) > 80
    assert {each for where, schema in asked for each in unbounded(where, schema)} == set()


def test_what_is_unbounded_would_be_found() -> None:
    fields = {
        "name": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "tags": {"type": "array", "items": {"type": "integer"}},
        "short": {"type": "string", "maxLength": 3},
    }
    found = list(unbounded("x", {"type": "object", "properties": fields}))
    assert found == [
        "x.tags: any number of items",
        "x.tags[]: a number of any size",
    ]


def told(response: Any) -> tuple[int, str]:
    body = response.json()
    kind = body.get("type", "") if isinstance(body, dict) else ""
    return response.status_code, kind.removeprefix("/problems/")


def multipart(parts: list[tuple[str, str | None, bytes]]) -> tuple[bytes, dict[str, str]]:
    body = b""
    for name, filename, data in parts:
        file = f'; filename="{filename}"' if filename else ""
        head = f'--x\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
        body += head.encode() + data + b"\r\n"
    return body + b"--x--\r\n", {"Content-Type": "multipart/form-data; boundary=x"}


def upload(service: Service, *parts: tuple[str, str | None, bytes]) -> tuple[int, str]:
    body, headers = multipart([("archive", "a.zip", ARCHIVE), *parts])
    return told(service.client.post("/v1/tasks", content=body, headers=headers))


def test_the_parts_of_an_upload_are_counted_and_weighed(service: Service) -> None:
    most = 64 * 2**10
    whole = b'{"name": "a"}'.ljust(most)
    assert upload(service, ("metadata", None, whole)) == (202, "")
    assert upload(service, ("metadata", None, whole + b" ")) == (413, "metadata-too-large")
    assert upload(service, ("metadata", "m.json", whole)) == (202, "")
    assert upload(service, ("metadata", "m.json", whole + b" ")) == (413, "metadata-too-large")
    assert upload(service, ("archive", "b.zip", ARCHIVE)) == (422, "request-invalid")
    assert upload(service, ("other", None, b"")) == (422, "request-invalid")
    many = [("metadata", None, b"{}")] * 3
    assert upload(service, *many) == (400, "bad-request")
    assert upload(service, ("metadata" + "x" * 70_000, None, b"{}"))[0] in (400, 413, 422)
    assert upload(service, ("metadata", "x" * 9_000, b"{}"))[0] in (202, 400)


def test_an_archive_is_as_large_as_the_setting_says(serve: Any) -> None:
    service = serve(max_upload_bytes=300_000)
    over = 300_000 + 128 * 2**10
    body, headers = multipart([("archive", "a.zip", b"x" * 300_000)])
    response = service.client.post("/v1/tasks", content=body, headers=headers)
    assert told(response) == (415, "archive-unsupported")
    body, headers = multipart([("archive", "a.zip", b"x" * over)])
    response = service.client.post("/v1/tasks", content=body, headers=headers)
    assert told(response) == (413, "body-too-large")
    assert service.blobs() == []


def test_json_is_as_large_as_a_mebibyte(service: Service) -> None:
    accepted = service.send().json()
    address, headers = f"/v1/tasks/{accepted['id']}", {"Content-Type": "application/json"}
    whole = b'{"name": "a"}'.ljust(MAX_JSON_BYTES)
    assert told(service.client.patch(address, content=whole, headers=headers)) == (200, "")
    response = service.client.patch(address, content=whole + b" ", headers=headers)
    assert told(response) == (413, "body-too-large")


@pytest.mark.parametrize(
    ("field", "largest", "one_more"),
    [
        ("name", "x" * 200, "x" * 201),
        ("tags", [str(i) for i in range(50)], [str(i) for i in range(51)]),
        ("tags", ["x" * 100], ["x" * 101]),
    ],
)
def test_metadata_takes_the_largest_and_not_one_more(
    service: Service, field: str, largest: Any, one_more: Any
) -> None:
    for value, expected in ((largest, (202, "")), (one_more, (422, "request-invalid"))):
        metadata = json.dumps({field: value}).encode()
        assert upload(service, ("metadata", None, metadata)) == expected


@pytest.mark.parametrize(
    ("address", "parameter", "largest", "one_more"),
    [
        ("/v1/tasks", "limit", "200", "201"),
        ("/v1/tasks", "q", "x" * 200, "x" * 201),
        ("/v1/tasks", "tag", "x" * 100, "x" * 101),
        ("/v1/jobs", "limit", "200", "201"),
        ("/v1/jobs", "task_id", "x" * 100, "x" * 101),
        ("/v1/tasks/TASK/neighbours", "k", "1000", "1001"),
        ("/v1/tasks/TASK/estimates", "k", "1000", "1001"),
        ("/v1/outcomes", "limit", "200", "201"),
    ],
)
def test_a_parameter_takes_the_largest_and_not_one_more(
    service: Service, address: str, parameter: str, largest: str, one_more: str
) -> None:
    address = address.replace("TASK", service.ready())
    assert service.client.get(address, params={parameter: largest}).status_code == 200
    response = service.client.get(address, params={parameter: one_more})
    assert told(response) == (422, "request-invalid")


def test_a_thousand_tasks_are_compared_and_not_one_more(service: Service) -> None:
    task = service.ready()
    for n, status in ((1000, 200), (1001, 422)):
        body = {"tasks": [task] * n, "metric": "cosine"}
        assert service.client.post("/v1/distances", json=body).status_code == status


def test_an_idempotency_key_has_two_hundred_letters_and_not_one_more(service: Service) -> None:
    assert service.send(key="k" * 200).status_code == 202
    assert_problem(service.send(key="k" * 201), 422, "request-invalid")


@pytest.mark.parametrize("where", ["one header", "many headers"])
def test_the_head_of_a_request_is_bounded(settings: Settings, where: str) -> None:
    started = threading.Event()
    server = Server(
        create_app(settings), grace_seconds=1, on_started=started.set, on_stopping=lambda: None
    )
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        assert started.wait(60)
        base = f"http://127.0.0.1:{listening.getsockname()[1]}/healthz"
        for n, statuses in ((60_000, {200, 404}), (300_000, {400})):
            headers = {}
            if where == "one header":
                headers = {"X": "x" * n}
            else:
                headers = {f"X-{i}": "x" * 90 for i in range(n // 100)}
            try:
                status = httpx.get(base, headers=headers, trust_env=False).status_code
            except httpx.TransportError:  # it hung up before all was sent
                status = 400
            assert status in statuses
        server.should_exit = True
        thread.join()


def test_a_mistake_of_any_size_is_told_in_a_few_words(service: Service) -> None:
    for query in ("x" * 50_000, "&".join(f"p{i}" for i in range(9_000))):
        response = service.client.get(f"/v1/tasks?{query}")
        assert_problem(response, 422, "unknown-parameter")
        assert len(response.content) < 2_000
    response = service.client.get("/v1/tasks/" + "x" * 50_000)
    assert response.status_code == 404
    assert len(response.content) < 2_000
