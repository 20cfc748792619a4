"""Of what takes memory or cores there is only so much at a time in a process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from app.errors import TooManyRequests


class Slots:
    """`with slots:` while it is done; one too many is asked to come again."""

    def __init__(self, number: int, code: str, detail: str) -> None:
        self._free = threading.BoundedSemaphore(number)
        self._code, self._detail = code, detail

    @contextmanager
    def one(self) -> Iterator[None]:
        if not self._free.acquire(blocking=False):
            raise TooManyRequests(self._code, self._detail, "Try again in a moment.")
        try:
            yield
        finally:
            self._free.release()
