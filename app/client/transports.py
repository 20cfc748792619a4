"""The two ways to wait: one of them holds its thread, the other its place in an event loop.

Whatever is above is written once, with `await`. Over `Blocking` none of it ever gives way, so that
`app.client.blocking` can run it like any other function.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Protocol, TypeVar, cast

import anyio
import httpx

from app.client.problems import ProblemAnswered

T = TypeVar("T")
OnPiece = Callable[[], None]
"""Is called whenever a piece of a request is gone."""


class Transport(Protocol):
    async def send(
        self, method: str, url: str, on_piece: OnPiece | None = None, **request: Any
    ) -> httpx.Response: ...

    def lines(self, url: str, **request: Any) -> AsyncIterator[str]: ...

    async def pause(self, seconds: float) -> None: ...

    async def work(self, function: Callable[[], T]) -> T:
        """What `function` gives, which reads files or computes."""
        ...

    async def close(self) -> None: ...


class Blocking:
    def __init__(self, *, sleep: Callable[[float], None] = time.sleep, **options: Any) -> None:
        self._http = httpx.Client(**options)
        self._sleep = sleep

    async def send(
        self, method: str, url: str, on_piece: OnPiece | None = None, **request: Any
    ) -> httpx.Response:
        built = self._http.build_request(method, url, **request)
        if on_piece is not None:
            built.stream = _Told(cast("httpx.SyncByteStream", built.stream), on_piece)
        return self._http.send(built)

    async def lines(self, url: str, **request: Any) -> AsyncIterator[str]:
        with self._http.stream("GET", url, **request) as response:
            if response.is_error:
                response.read()
                raise ProblemAnswered.of(response)
            for line in response.iter_lines():
                yield line

    async def pause(self, seconds: float) -> None:
        self._sleep(seconds)

    async def work(self, function: Callable[[], T]) -> T:
        return function()

    async def close(self) -> None:
        self._http.close()


class Looped:
    def __init__(self, **options: Any) -> None:
        self._http = httpx.AsyncClient(**options)

    async def send(
        self, method: str, url: str, on_piece: OnPiece | None = None, **request: Any
    ) -> httpx.Response:
        built = self._http.build_request(method, url, **request)
        if on_piece is not None:
            built.stream = _ToldFromThreads(cast("httpx.SyncByteStream", built.stream), on_piece)
        return await self._http.send(built)

    async def lines(self, url: str, **request: Any) -> AsyncIterator[str]:
        async with self._http.stream("GET", url, **request) as response:
            if response.is_error:
                await response.aread()
                raise ProblemAnswered.of(response)
            async for line in response.aiter_lines():
                yield line

    async def pause(self, seconds: float) -> None:
        await anyio.sleep(seconds)

    async def work(self, function: Callable[[], T]) -> T:
        return await anyio.to_thread.run_sync(function)

    async def close(self) -> None:
        await self._http.aclose()


class _Told(httpx.SyncByteStream):
    def __init__(self, stream: httpx.SyncByteStream, on_piece: OnPiece) -> None:
        self._stream = stream
        self._on_piece = on_piece

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._stream:
            yield piece
            self._on_piece()


class _ToldFromThreads(httpx.AsyncByteStream):
    """Pieces are read, and images encoded, beside the loop."""

    def __init__(self, stream: httpx.SyncByteStream, on_piece: OnPiece) -> None:
        self._stream = stream
        self._on_piece = on_piece

    async def __aiter__(self) -> AsyncIterator[bytes]:
        pieces = iter(self._stream)
        while (piece := await anyio.to_thread.run_sync(next, pieces, None)) is not None:
            yield piece
            self._on_piece()
