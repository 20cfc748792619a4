"""The HTTP contract from the caller's side: requests that are repeated until they were answered.

Every POST carries an Idempotency-Key, the same for each repetition, so a request whose answer was
lost is never carried out twice.
"""

from __future__ import annotations

import io
import json
import math
import re
import time
import uuid
from collections.abc import AsyncIterator, Callable
from difflib import get_close_matches
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from app.client.problems import ProblemAnswered, ServerUnreachable
from app.client.transports import OnPiece, Transport
from app.errors import InvalidRequest, NotFound, Unavailable
from app.folder import Archive, archive_name, open_archive

Json = dict[str, Any]
OnSent = Callable[[int], None]

FINAL_STATES = frozenset({"succeeded", "refused", "failed", "cancelled"})

# What a listing is of, and how one comes to know its ids.
_LISTED = {
    "/v1/tasks": ("task", "`task2vec tasks` lists those there are."),
    "/v1/finetunes": ("fine-tuning run", "`task2vec finetunes` lists those there are."),
    "/v1/outcomes": ("outcome", "`task2vec outcomes list` lists those there are."),
    "/v1/jobs": ("job", "Take the id from the answer that accepted it; jobs go with their task."),
}
_WITHOUT_EMBEDDING = frozenset({"refused", "failed", "cancelled"})
_LEAST_LETTERS = 4  # of the beginning of an id
_NO_ID = re.compile(r"[^A-Za-z0-9._:-]")

# A proxy that the environment names has no business between this machine and itself.
_NO_PROXY = {f"all://{host}": None for host in ("127.0.0.1", "localhost", "[::1]")}
_PASSING = frozenset({429, 502, 503, 504})
ATTEMPTS = 4
DEADLINE_SECONDS = 1200.0
_ATTEMPTS_TO_RESUME = 12  # a service that restarts needs seconds, not milliseconds
_LONGEST_PAUSE_SECONDS = 2.0
_STEP_SECONDS = 30.0
_ANSWER_SECONDS = 300.0  # a large upload is hashed before it is answered
TIMEOUT = httpx.Timeout(_STEP_SECONDS, read=_ANSWER_SECONDS)
_SHORTEST_TIMEOUT_SECONDS = 0.1
_STREAM_SECONDS = 30.0  # streams of events say every fifteen that they are alive


class Wire:
    """`deadline_seconds`: how long a request may stand still, over all its repetitions."""

    def __init__(
        self,
        open_transport: Callable[..., Transport],
        server: str,
        key: str | None = None,
        *,
        attempts: int = ATTEMPTS,
        deadline_seconds: float = DEADLINE_SECONDS,
        transport: Any = None,
    ) -> None:
        if not server.startswith(("http://", "https://")):
            raise _no_address(server)
        self.server = server.rstrip("/")
        self._attempts = attempts
        self._deadline_seconds = deadline_seconds
        self._open_transport = open_transport
        try:
            self._transport = open_transport(
                base_url=self.server,
                headers={"Authorization": f"Bearer {key}"} if key else {},
                transport=transport,
                mounts=None if transport else _NO_PROXY,
            )
        except httpx.InvalidURL as error:
            raise _no_address(server) from error

    async def close(self) -> None:
        await self._transport.close()

    def keyless(self) -> Transport:
        """For addresses that were signed: no server but our own gets the key."""
        return self._open_transport(mounts=_NO_PROXY)

    async def pause(self, seconds: float) -> None:
        await self._transport.pause(seconds)

    async def work(self, function: Callable[[], Any]) -> Any:
        return await self._transport.work(function)

    async def get(self, path: str, /, **params: Any) -> Any:
        return _json(await self.send("GET", path, params=params))

    async def download(self, path: str, /, **params: Any) -> bytes:
        return (await self.send("GET", path, params=params)).content

    async def tables(self, path: str, /, **params: Any) -> AsyncIterator[bytes]:
        """The pages of a listing that is a table, and tells the next page in a header."""
        cursor = None
        while True:
            answer = await self.send("GET", path, params={**params, "cursor": cursor})
            yield answer.content
            cursor = answer.headers.get("Task2Vec-Next-Cursor")
            if cursor is None:
                return

    async def post(self, path: str, body: Json) -> Any:
        return _json(await self.send("POST", path, json=body))

    async def post_bytes(self, path: str, content: bytes, media_type: str) -> Any:
        headers = {"Content-Type": media_type}
        return _json(await self.send("POST", path, content=content, headers=headers))

    async def patch(self, path: str, body: Json) -> Any:
        return _json(await self.send("PATCH", path, json=body))

    async def delete(self, path: str) -> Any:
        response = await self.send("DELETE", path)
        return _json(response) if response.is_success and response.content else None

    async def pages(self, path: str, /, **params: Any) -> AsyncIterator[Json]:
        """The items of a listing, page after page."""
        cursor = None
        while True:
            page = await self.get(path, **params, cursor=cursor)
            for item in page["items"]:
                yield item
            cursor = page.get("next_cursor")
            if cursor is None:
                return

    async def upload(
        self,
        path: str,
        archive: Path | Archive,
        metadata: Json,
        *,
        on_sent: OnSent | None = None,
    ) -> Json:
        """Sends an archive, or what is made into one; `on_sent` hears how many bytes are gone."""
        with await self.work(partial(open_archive, archive)) as stream:
            counted = _Counted(stream)
            files = {
                "metadata": (None, json.dumps(metadata), "application/json"),
                "archive": (archive_name(archive), counted, "application/octet-stream"),
            }

            def tell() -> None:
                if on_sent is not None:
                    on_sent(counted.sent_bytes)

            sent = await self.send("POST", path, on_piece=tell, files=files)
        answer: Json = _json(sent)
        return answer

    async def find(self, listing: str, reference: str) -> Json:
        """What has that id, or else the only thing there whose id begins so."""
        try:
            return await self._exactly(listing, reference)
        except NotFound:
            return await self._beginning(listing, reference)

    async def find_task(self, reference: str) -> Json:
        """The task of that id, or else the only one of that name, or whose id begins so.

        One that was refused or failed stands back behind others of its name, and the library's
        tasks behind one's own.
        """
        try:
            return await self._exactly("/v1/tasks", reference)
        except NotFound:
            named = await self._named(reference)
        if len(named) > 1:
            ids = ", ".join(task["id"] for task in named)
            raise InvalidRequest(
                "task-ambiguous",
                f"{len(named)} tasks are called {reference!r}: {ids}.",
                "Name one by its id, or by how that begins.",
            )
        if named:
            return named[0]
        try:
            return await self._beginning("/v1/tasks", reference)
        except NotFound as nothing:
            raise await self._with_names_alike(nothing, reference) from None

    async def _with_names_alike(self, nothing: NotFound, reference: str) -> NotFound:
        newest = await self.get("/v1/tasks", limit=200)
        names = {task["name"] for task in newest["items"]}
        near = get_close_matches(reference, names, n=3)
        if not near:
            return nothing
        meant = f"Did you mean {' or '.join(map(repr, near))}?"
        return NotFound(nothing.code, nothing.detail, f"{meant} {nothing.remedy}")

    async def _named(self, name: str) -> list[Json]:
        """One's own tasks of that name, else the library's."""
        for library in (None, True):
            listed = self.pages("/v1/tasks", q=name, library=library, limit=200)
            named = [task async for task in listed if task["name"] == name]
            if named:
                break
        return [task for task in named if task["status"] not in _WITHOUT_EMBEDDING] or named

    async def _exactly(self, listing: str, reference: str) -> Json:
        try:
            found: Json = await self.get(f"{listing}/{quote(reference, safe='')}")
        except ProblemAnswered as problem:
            if problem.status not in (404, 422):  # 422: it does not even look like an id
                raise
            raise _nothing(listing, reference) from problem
        return found

    async def _beginning(self, listing: str, reference: str) -> Json:
        if len(reference) < _LEAST_LETTERS or _NO_ID.search(reference):
            raise _nothing(listing, reference)
        begun = self.pages(listing, id_prefix=reference, limit=200)
        ids = [row["id"] async for row in begun]
        if len(ids) > 1:
            raise InvalidRequest(
                "id-ambiguous",
                f"{len(ids)} ids begin with {reference!r}: {', '.join(ids[:5])}"
                f"{', ...' if len(ids) > 5 else ''}.",
                "Write more of the one that is meant.",
            )
        return await self._exactly(listing, ids[0] if ids else reference)

    async def follow(
        self, job_id: str, *, timeout_seconds: float | None = None
    ) -> AsyncIterator[Json]:
        """A job's progress until its final state."""
        path = f"/v1/jobs/{quote(job_id, safe='')}/events"
        async for progress in self.stream(path, f"Job {job_id}", timeout_seconds=timeout_seconds):
            yield progress

    async def stream(
        self, path: str, called: str, *, timeout_seconds: float | None = None
    ) -> AsyncIterator[Json]:
        """Events up to one that tells a final state; a stream that breaks is taken up again."""
        began = time.monotonic()
        failures = 0
        while True:
            try:
                async for event in self._events(path, began, timeout_seconds):
                    if event is not None:
                        failures = 0
                        yield event
                        if event.get("state") in FINAL_STATES:
                            return
                    if _left_seconds(began, timeout_seconds) <= 0:
                        raise _unfinished(called, timeout_seconds)
                failures += 1  # a stream that ends early is a failure too
                error: Exception = EOFError("the stream of events ended early")
            except httpx.TransportError as lost:
                failures += 1
                error = lost
            pause = pause_seconds(failures)
            if _left_seconds(began, timeout_seconds) <= pause:
                raise _unfinished(called, timeout_seconds) from error
            if failures >= _ATTEMPTS_TO_RESUME:
                raise self._unreachable(error)
            await self.pause(pause)

    async def _events(
        self, path: str, began: float, timeout_seconds: float | None
    ) -> AsyncIterator[Json | None]:
        """None where the stream only says that it is alive."""
        headers = {"Accept": "text/event-stream"}
        left = max(_left_seconds(began, timeout_seconds), _SHORTEST_TIMEOUT_SECONDS)
        data: list[str] = []
        async for line in self._transport.lines(
            path, headers=headers, timeout=min(_STREAM_SECONDS, left)
        ):
            if line.startswith("data:"):
                data.append(line.removeprefix("data:").removeprefix(" "))
            elif not line and data:
                yield json.loads("\n".join(data))
                data = []
            elif line.startswith(":"):
                yield None

    async def send(
        self, method: str, path: str, *, on_piece: OnPiece | None = None, **request: Any
    ) -> httpx.Response:
        """The answer, if it is a success. Of a DELETE whose first answer was lost also the 404 of
        what is gone by now."""
        asked = request.pop("params", None) or {}
        params = {name: value for name, value in asked.items() if value is not None}
        if params:  # none at all would take those away that stand in the path
            request["params"] = params
        if method == "POST":
            request["headers"] = {
                **request.get("headers", {}),
                "Idempotency-Key": uuid.uuid4().hex,
            }
        patience = _Patience(self._attempts, self._deadline_seconds)
        on_piece = None if on_piece is None else patience.renewed_by(on_piece)
        lost = False
        while True:
            request["timeout"] = patience.timeout()
            try:
                response = await self._transport.send(method, path, on_piece, **request)
            except httpx.TransportError as error:
                lost = True
                pause = pause_seconds(patience.attempt)
                if not patience.lasts(pause):
                    raise self._unreachable(error) from error
            else:
                if response.is_success or (
                    lost and method == "DELETE" and response.status_code == httpx.codes.NOT_FOUND
                ):
                    return response
                pause = _asked_pause_seconds(response) or pause_seconds(patience.attempt)
                if response.status_code not in _PASSING or not patience.lasts(pause):
                    raise ProblemAnswered.of(response)
            await self.pause(pause)

    def _unreachable(self, error: Exception) -> ServerUnreachable:
        return ServerUnreachable(
            "server-unreachable",
            f"No answer from {self.server} ({error}).",
            "Start it with `task2vec serve`, or name another: by --server or TASK2VEC_SERVER, in "
            "Python by the client's first argument.",
        )


class _Patience:
    """With one request, over all its repetitions; an upload that gets on renews it."""

    def __init__(self, attempts: int, deadline_seconds: float) -> None:
        self.attempt = 1
        self._attempts = attempts
        self._deadline_seconds = deadline_seconds
        self._since = time.monotonic()

    def renewed_by(self, on_piece: OnPiece) -> OnPiece:
        def told() -> None:
            self._since = time.monotonic()
            on_piece()

        return told

    def timeout(self) -> httpx.Timeout:
        left = max(_left_seconds(self._since, self._deadline_seconds), _SHORTEST_TIMEOUT_SECONDS)
        return httpx.Timeout(min(_STEP_SECONDS, left), read=min(_ANSWER_SECONDS, left))

    def lasts(self, pause: float) -> bool:
        """Whether there is to be another attempt after that pause."""
        self.attempt += 1
        left = _left_seconds(self._since, self._deadline_seconds)
        return self.attempt <= self._attempts and pause < left


class _Counted:
    """A stream that knows how far it was read; what httpx needs of a file, and no more."""

    def __init__(self, stream: io.RawIOBase | io.BufferedIOBase) -> None:
        self._stream = stream
        self.sent_bytes = 0

    def fileno(self) -> int:
        return self._stream.fileno()

    def seek(self, offset: int) -> int:
        self.sent_bytes = 0
        return self._stream.seek(offset)

    def read(self, size: int) -> bytes:
        piece = self._stream.read(size) or b""
        self.sent_bytes += len(piece)
        return piece


def _json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError as error:
        raise Unavailable(
            "answer-unfit",
            f"{response.url} answered something that is no JSON.",
            "Is this a Task2Vec server?",
        ) from error


def pause_seconds(attempt: int) -> float:
    return min(0.1 * 2.0**attempt, _LONGEST_PAUSE_SECONDS)


def _left_seconds(since: float, limit: float | None) -> float:
    return math.inf if limit is None else limit - (time.monotonic() - since)


def _asked_pause_seconds(response: httpx.Response) -> float | None:
    """As a number of seconds, or as a date: HTTP has both."""
    asked = response.headers.get("Retry-After", "")
    if asked.isdecimal():
        return float(asked)
    try:
        return max(0.0, parsedate_to_datetime(asked).timestamp() - time.time())
    except ValueError:
        return None


def _nothing(listing: str, reference: str) -> NotFound:
    noun, remedy = _LISTED[listing]
    referred = "id or name" if noun == "task" else "id"
    return NotFound(
        f"{noun.replace(' ', '-')}-not-found",
        f"There is no {noun} of the {referred} {reference!r}.",
        remedy,
    )


def _no_address(server: str) -> InvalidRequest:
    return InvalidRequest(
        "server-url", f"{server!r} is no server address.", "Write it as http://HOST:PORT."
    )


def _unfinished(called: str, timeout_seconds: float | None) -> Unavailable:
    return Unavailable(
        "job-unfinished",
        f"{called} has not ended within {timeout_seconds:g} s.",
        "It goes on: wait for it again, or cancel it.",
    )
