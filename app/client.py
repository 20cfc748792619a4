"""The HTTP contract from the caller's side: requests that are repeated until they were answered.

Every POST carries an Idempotency-Key, the same for each repetition, so a request whose answer was
lost is never carried out twice.
"""

from __future__ import annotations

import io
import itertools
import json
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import httpx

from app.errors import InvalidRequest, NotFound, Task2VecError, Unavailable
from app.folder import Archive, archive_name, open_archive

Json = dict[str, Any]
OnSent = Callable[[int], None]

FINAL_STATES = frozenset({"succeeded", "refused", "failed", "cancelled"})

# A proxy that the environment names has no business between this machine and itself.
_NO_PROXY = {f"all://{host}": None for host in ("127.0.0.1", "localhost", "[::1]")}
_PASSING = frozenset({429, 502, 503, 504})
ATTEMPTS = 4
_ERRORS_TOLD = 3
_ATTEMPTS_TO_RESUME = 12  # a service that restarts needs seconds, not milliseconds
_LONGEST_PAUSE_SECONDS = 2.0
_TIMEOUT = httpx.Timeout(30, read=300)  # a large upload is hashed before it is answered


class ServerUnreachable(Unavailable):
    """Nobody answers at that address."""


class ProblemAnswered(Task2VecError):
    """The server's own problem document, told on."""

    def __init__(self, document: Json) -> None:
        detail = str(document.get("detail") or document.get("title") or "The request failed.")
        remedy = str(document.get("remedy", ""))
        if errors := document.get("errors"):  # a field each: they say more than the remedy does
            told = [f"{error['field']}: {error['message']}" for error in errors[:_ERRORS_TOLD]]
            remedy = "; ".join(told) + ("; and more." if len(errors) > _ERRORS_TOLD else ".")
        super().__init__(
            code=str(document.get("type", "")).rpartition("/")[2], detail=detail, remedy=remedy
        )
        self.document = document

    def problem(self) -> Json:
        return self.document


class Client:
    def __init__(
        self,
        server: str,
        key: str | None = None,
        *,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if not server.startswith(("http://", "https://")):
            raise InvalidRequest(
                "server-url", f"{server!r} is no server address.", "Write it as http://HOST:PORT."
            )
        self.server = server.rstrip("/")
        self._sleep = sleep
        self._http = httpx.Client(
            base_url=self.server,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=_TIMEOUT,
            transport=transport,
            mounts=None if transport else _NO_PROXY,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(self, path: str, **params: Any) -> Any:
        return self._send("GET", path, params=params).json()

    def download(self, path: str, **params: Any) -> bytes:
        return self._send("GET", path, params=params).content

    def tables(self, path: str, **params: Any) -> Iterator[bytes]:
        """The pages of a listing that is a table, and tells the next page in a header."""
        cursor = None
        while True:
            answer = self._send("GET", path, params={**params, "cursor": cursor})
            yield answer.content
            cursor = answer.headers.get("Task2Vec-Next-Cursor")
            if cursor is None:
                return

    def post(self, path: str, body: Json, *, idempotency_key: str | None = None) -> Any:
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        return self._send("POST", path, json=body, headers=headers).json()

    def post_bytes(
        self, path: str, content: bytes, media_type: str, *, idempotency_key: str | None = None
    ) -> Any:
        headers = {
            "Idempotency-Key": idempotency_key or uuid.uuid4().hex,
            "Content-Type": media_type,
        }
        return self._send("POST", path, content=content, headers=headers).json()

    def patch(self, path: str, body: Json) -> Any:
        return self._send("PATCH", path, json=body).json()

    def delete(self, path: str) -> Any:
        response = self._send("DELETE", path)
        return response.json() if response.content else None

    def pages(self, path: str, **params: Any) -> Iterator[Json]:
        """The items of a listing, page after page."""
        cursor = None
        while True:
            page = self.get(path, **params, cursor=cursor)
            yield from page["items"]
            cursor = page.get("next_cursor")
            if cursor is None:
                return

    def upload(
        self,
        path: str,
        archive: Path | Archive,
        metadata: Json,
        *,
        idempotency_key: str | None = None,
        on_sent: OnSent | None = None,
    ) -> Json:
        """Sends an archive, or what is made into one; `on_sent` hears how many bytes are gone."""
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        with open_archive(archive) as stream:
            body = _Watched(stream, on_sent) if on_sent else stream
            files = {
                "metadata": (None, json.dumps(metadata), "application/json"),
                "archive": (archive_name(archive), body, "application/octet-stream"),
            }
            answer: Json = self._send("POST", path, files=files, headers=headers).json()
        return answer

    def find_task(self, id_or_name: str) -> Json:
        """The task of that id, or else the only one of that name."""
        try:
            found: Json = self.get(f"/v1/tasks/{quote(id_or_name, safe='')}")
        except ProblemAnswered as problem:
            # 422: it does not even look like an id.
            if problem.document["status"] not in (404, 422):
                raise
        else:
            return found
        listed = self.pages("/v1/tasks", q=id_or_name, limit=200)
        named = [task for task in listed if task["name"] == id_or_name]
        if not named:
            raise NotFound(
                "task-not-found",
                f"There is no task of the id or name {id_or_name!r}.",
                "`task2vec tasks` lists the tasks there are.",
            )
        if len(named) > 1:
            ids = ", ".join(task["id"] for task in named)
            raise InvalidRequest(
                "task-ambiguous",
                f"{len(named)} tasks are called {id_or_name!r}: {ids}.",
                "Name one by its id.",
            )
        return named[0]

    def follow(self, job_id: str) -> Iterator[Json]:
        """A job's progress until its final state; a stream that breaks is taken up again."""
        failures = 0
        while True:
            try:
                for progress in self._events(f"/v1/jobs/{quote(job_id, safe='')}/events"):
                    failures = 0
                    yield progress
                    if progress["state"] in FINAL_STATES:
                        return
                failures += 1  # a stream that ends early is a failure too
                error: Exception = EOFError("the stream of events ended early")
            except httpx.TransportError as lost:
                failures += 1
                error = lost
            if failures >= _ATTEMPTS_TO_RESUME:
                raise self._unreachable(error)
            self._sleep(pause_seconds(failures))

    def _events(self, path: str) -> Iterator[Json]:
        headers = {"Accept": "text/event-stream"}
        with self._http.stream("GET", path, headers=headers, timeout=30) as response:
            if response.status_code >= httpx.codes.BAD_REQUEST:
                response.read()
                raise _problem(response)
            data: list[str] = []
            for line in response.iter_lines():
                if line.startswith("data:"):
                    data.append(line.removeprefix("data:").removeprefix(" "))
                elif not line and data:
                    yield json.loads("\n".join(data))
                    data = []

    def _send(self, method: str, path: str, **request: Any) -> httpx.Response:
        if params := request.get("params"):
            request["params"] = {name: value for name, value in params.items() if value is not None}
        for attempt in itertools.count(1):
            try:
                response = self._http.request(method, path, **request)
            except httpx.TransportError as error:
                if attempt == ATTEMPTS:
                    raise self._unreachable(error) from error
                pause = pause_seconds(attempt)
            else:
                if response.is_success:
                    return response
                if response.status_code not in _PASSING or attempt == ATTEMPTS:
                    raise _problem(response)
                pause = _asked_pause_seconds(response) or pause_seconds(attempt)
            self._sleep(pause)
        raise AssertionError

    def _unreachable(self, error: Exception) -> ServerUnreachable:
        return ServerUnreachable(
            "server-unreachable",
            f"No answer from {self.server} ({error}).",
            "Start it with `task2vec serve`, or name another with --server.",
        )


def keyless() -> httpx.Client:
    """For addresses that were signed: no server but our own gets the key."""
    return httpx.Client(timeout=_TIMEOUT, mounts=_NO_PROXY)


class _Watched:
    """A stream that tells how far it was read; what httpx needs of a file, and no more."""

    def __init__(self, stream: io.RawIOBase | io.BufferedReader, on_sent: OnSent) -> None:
        self._stream = stream
        self._on_sent = on_sent
        self._sent_bytes = 0

    def fileno(self) -> int:
        return self._stream.fileno()

    def seek(self, offset: int) -> int:
        self._sent_bytes = 0
        return self._stream.seek(offset)

    def read(self, size: int) -> bytes:
        piece = self._stream.read(size) or b""
        self._sent_bytes += len(piece)
        self._on_sent(self._sent_bytes)
        return piece


def pause_seconds(attempt: int) -> float:
    return min(0.1 * 2.0**attempt, _LONGEST_PAUSE_SECONDS)


def _asked_pause_seconds(response: httpx.Response) -> float | None:
    asked = response.headers.get("Retry-After", "")
    return min(float(asked), 30.0) if asked.isdecimal() else None


def _problem(response: httpx.Response) -> ProblemAnswered:
    try:
        document = response.json()
    except ValueError:
        document = None
    if not isinstance(document, dict):
        document = {
            "status": response.status_code,
            "detail": f"{response.url} answered {response.status_code} {response.reason_phrase}.",
            "remedy": "Is this a Task2Vec server? See the server's log.",
        }
    return ProblemAnswered({"status": response.status_code, **document})
