"""The real API behind a real socket, and each client before it: one that is awaited, one that is not.

What stands in between forwards requests, and fails in the ways it is told to.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import httpx
import pytest
import uvicorn

from app.api.jobs import stop_streams
from app.api.main import create_app
from app.settings import Settings
from task2vec import AsyncTask2Vec, Task2Vec
from tests.api.conftest import Service, models_dir, settings  # noqa: F401
from tests.api.runs import finish

CUT = "cut"
HALF = "half"
SOURCES = "https://example.org/sets/"


class Awaited:
    """Looks like the client that is not awaited: the same tests run on both."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._loop = asyncio.Runner()
        self._client = AsyncTask2Vec(*args, **options)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)

        def call(*args: Any, **named: Any) -> Any:
            asked = method(*args, **named)
            return self._loop.run(asked if inspect.isawaitable(asked) else _listed(asked))

        return call

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.run(self._client.close())
        self._loop.close()


async def _listed(items: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in items]


class Middle:
    """Forwards to the API, after failing in the ways listed: a status with headers, the connection
    cut before or halfway through the answer."""

    def __init__(self, api: str) -> None:
        self.api = httpx.Client(base_url=api, timeout=60)
        self.failures: list[Any] = []
        self.change: Callable[[Any], Any] = lambda answer: answer
        self.seen: list[tuple[str, str, str | None]] = []
        self.closed_seconds = 0
        self._opens_at: float | None = None

    def _closed(self) -> Any:
        """From the first request on, for as long as it is told."""
        if not self.closed_seconds:
            return None
        if self._opens_at is None:
            self._opens_at = time.monotonic() + self.closed_seconds
            return 503, {"Retry-After": str(self.closed_seconds)}
        return (503, {}) if time.monotonic() < self._opens_at else None

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = _body(handler)
        self.seen.append((handler.command, handler.path, handler.headers.get("Idempotency-Key")))
        failure = self._closed() or (self.failures.pop(0) if self.failures else None)
        if isinstance(failure, tuple):
            status, headers = failure
            _respond(handler, status, headers, b"{}")
            return
        headers = {
            name: value
            for name, value in handler.headers.items()
            if name.lower() not in ("host", "content-length", "transfer-encoding")
        }
        answer = self.api.request(handler.command, handler.path, content=body, headers=headers)
        if failure == CUT:  # it was done, and nobody hears of it
            handler.close_connection = True
            return
        content = answer.content
        if "json" in answer.headers.get("content-type", ""):
            content = json.dumps(self.change(answer.json())).encode()
        told = {"Content-Type": answer.headers.get("content-type", "")}
        _respond(handler, answer.status_code, told, content, half=failure == HALF)


def _respond(
    handler: BaseHTTPRequestHandler,
    status: int,
    headers: dict[str, str],
    content: bytes,
    *,
    half: bool = False,
) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content[: len(content) // 2] if half else content)
    handler.close_connection = half


def _body(handler: BaseHTTPRequestHandler) -> bytes:
    if handler.headers.get("Transfer-Encoding") == "chunked":
        pieces = []
        while size := int(handler.rfile.readline(), 16):
            pieces.append(handler.rfile.read(size))
            handler.rfile.readline()
        handler.rfile.readline()
        return b"".join(pieces)
    return handler.rfile.read(int(handler.headers.get("Content-Length") or 0))


@contextmanager
def standing_between(api: str) -> Iterator[tuple[str, Middle]]:
    middle = Middle(api)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one_request(self) -> None:
            self.raw_requestline = self.rfile.readline()
            if not self.raw_requestline or not self.parse_request():
                self.close_connection = True
                return
            middle.answer(self)
            self.wfile.flush()

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", middle
        server.shutdown()
        thread.join()
    middle.api.close()


@pytest.fixture
def service(settings: Settings) -> Iterator[Service]:  # noqa: F811
    """Its `client` is a plain one, over the same socket."""
    app = create_app(settings.model_copy(update={"source_prefixes": (SOURCES,)}))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as plain:
        yield Service(plain, app.state.resources)
    stop_streams(app)
    server.should_exit = True
    thread.join()


@pytest.fixture
def api(service: Service) -> str:
    return str(service.client.base_url)


@pytest.fixture(params=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> type[Any]:
    return Task2Vec if request.param == "sync" else Awaited


@pytest.fixture
def client(kind: type[Any], api: str) -> Iterator[Any]:
    with kind(api) as opened:
        yield opened


@pytest.fixture
def middle(api: str) -> Iterator[tuple[str, Middle]]:
    with standing_between(api) as opened:
        yield opened


@contextmanager
def working(service: Service, end: Callable[[str], None] | None = None) -> Iterator[None]:
    """A worker's part: takes whatever waits, reports once, and ends it."""
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(0.02):
            waiting = service.client.get("/v1/jobs", params={"state": "queued"}).json()["items"]
            for job in waiting:
                if end is not None:
                    end(job["id"])
                elif job["kind"] == "finetune":
                    finish(service, job["id"])
                else:
                    token = service.start(job["id"])
                    service.report(job["id"], token, "features", 3, 9)
                    service.succeed(job["id"], token)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
