"""A proxy before S3 that can be told to be slow, to answer errors, to break off, or to go away."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Literal
from urllib.parse import urlsplit

Trouble = Literal["none", "slow", "errors", "torn", "gone"]
"""`torn`: of each answer a half; `gone`: no connection is taken, those that are there end."""

SLOW_SECONDS = 2.0
_CHUNK_BYTES = 2**16
_BUSY = (
    b"HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nConnection: close\r\n"
    b"Content-Length: 59\r\n\r\n<Error><Code>SlowDown</Code><Message>Busy</Message></Error>"
)


class Proxy:
    def __init__(self, upstream: str) -> None:
        address = urlsplit(upstream)
        self._upstream = (address.hostname or "127.0.0.1", address.port or 80)
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="proxy")
        self._listens = threading.Event()
        self._stop: Callable[[], object] = lambda: None
        self.trouble: Trouble = "none"
        self.url = ""

    def __enter__(self) -> Proxy:
        self._thread.start()
        self._listens.wait()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop()
        self._thread.join()

    async def _run(self) -> None:
        over, loop = asyncio.Event(), asyncio.get_running_loop()
        self._stop = lambda: loop.call_soon_threadsafe(over.set)
        async with await asyncio.start_server(self._serve, "127.0.0.1", 0) as server:
            self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            self._listens.set()
            await over.wait()

    async def _serve(self, near: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        store = None
        try:
            if self.trouble != "gone":
                far, store = await asyncio.open_connection(*self._upstream)
                sides = {
                    asyncio.ensure_future(self._requests(near, store, client)),
                    asyncio.ensure_future(self._answers(far, client)),
                }
                _, left = await asyncio.wait(sides, return_when=asyncio.FIRST_COMPLETED)
                for side in left:
                    side.cancel()
        except OSError:
            pass  # whoever went away wants no more
        finally:
            client.close()
            if store is not None:
                store.close()

    async def _requests(
        self,
        near: asyncio.StreamReader,
        store: asyncio.StreamWriter,
        client: asyncio.StreamWriter,
    ) -> None:
        with suppress(OSError):
            while chunk := await near.read(_CHUNK_BYTES):
                if self.trouble == "gone":
                    return
                if self.trouble == "errors":
                    client.write(_BUSY)
                    await client.drain()
                    return
                if self.trouble == "slow":
                    await asyncio.sleep(SLOW_SECONDS)
                store.write(chunk)
                await store.drain()

    async def _answers(self, far: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while chunk := await far.read(_CHUNK_BYTES):
                if self.trouble == "gone":
                    return
                if self.trouble == "torn":
                    client.write(chunk[: len(chunk) // 2])
                    await client.drain()
                    return
                client.write(chunk)
                await client.drain()
