"""What takes a core for a while waits its turn in a line, and what takes none goes past it.

Threads and connections are few, and who waits in the line has neither: a task is told at once,
however many ask for neighbours.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from fastapi import Depends, Request

from app.errors import Unavailable

AT_ONCE = 8
"""A few more than a machine has cores: some of them wait for the database."""
PATIENCE_SECONDS = 20.0


class Line:
    """Of a process."""

    def __init__(self, at_once: int = AT_ONCE, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._free = anyio.Semaphore(at_once)
        self._patience_seconds = patience_seconds

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Unavailable where it does not come in time."""
        with anyio.move_on_after(self._patience_seconds) as waiting:
            await self._free.acquire()
        if waiting.cancelled_caught:
            raise Unavailable(
                "service-busy",
                f"So many ask for neighbours and estimates that none were worked out for this "
                f"request within {self._patience_seconds:g} s.",
                "Try again in a moment.",
            )
        try:
            yield
        finally:
            self._free.release()


async def _in_line(request: Request) -> AsyncIterator[None]:
    line: Line = request.app.state.line
    async with line.turn():
        yield


IN_LINE = Depends(_in_line, scope="function")
"""Among a route's `dependencies`, which come before its parameters: first the turn, then the
connection."""
