"""What takes long waits its turn in a line, and what does not goes past it.

Threads and connections are few, and who waits in a line has neither: a task is told at once,
however many ask for neighbours, and however long a bucket takes to answer.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cached_property

import anyio
from fastapi import Depends, Request

from app.errors import Unavailable


@dataclass(frozen=True)
class Line:
    """Of a process: `at_once` of what it is for may go on."""

    what: str
    at_once: int
    patience_seconds: float

    @cached_property
    def _free(self) -> anyio.Semaphore:
        return anyio.Semaphore(self.at_once)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Unavailable where it does not come in time."""
        with anyio.move_on_after(self.patience_seconds) as waiting:
            await self._free.acquire()
        if waiting.cancelled_caught:
            raise Unavailable(
                "service-busy",
                f"So many {self.what} are at work that this one's turn did not come within "
                f"{self.patience_seconds:g} s.",
                "Try again in a moment.",
            )
        try:
            yield
        finally:
            self._free.release()


@dataclass(frozen=True)
class Lines:
    answers: Line = field(
        # The interpreter works on one at a time; the others are in numpy, or wait for rows.
        default_factory=lambda: Line("searches and estimates", at_once=3, patience_seconds=20)
    )
    uploads: Line = field(
        # Of the forty threads; they wait for disks and buckets.
        default_factory=lambda: Line("uploads", at_once=16, patience_seconds=60)
    )


async def _in_line(request: Request) -> AsyncIterator[None]:
    lines: Lines = request.app.state.lines
    async with lines.answers.turn():
        yield


IN_LINE = Depends(_in_line, scope="function")
"""Of what is worked out. Among a route's `dependencies`, which come before its parameters: first
the turn, then the connection."""
