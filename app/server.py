"""uvicorn, told what to do when the service is up and when it is to end."""

from __future__ import annotations

import ctypes
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import uvicorn

if TYPE_CHECKING:
    from fastapi import FastAPI

MAX_HEAD_BYTES = 64 * 2**10
"""Of a request's line and headers, address and parameters among them."""


KEEP_ALIVE_SECONDS = 75
"""Longer than clients and proxies leave a connection idle, or one that is about to send another
request finds it closed."""


_M_ARENA_MAX = -8  # as glibc's malloc.h numbers it


def share_arenas() -> None:
    """Before threads begin: glibc would give each an arena of its own, and forty threads keep what
    large answers took there. Where there is another allocator, nothing is to be done."""
    with suppress(AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


def listening(host: str, port: int) -> socket.socket:
    """For `Server.run`; OSError where that cannot be listened on."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=2048)
    # Those that are accepted inherit it. Else the second packet of an answer, which is its body,
    # waits for the client to acknowledge the first, and that for forty milliseconds.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


class Server(uvicorn.Server):
    """Calls `on_started` once the service answers, and `on_stopping` when it is told to stop.

    The latter is to end open streams: uvicorn would wait for them, and a stream waits for its job.
    """

    def __init__(
        self,
        service: FastAPI,
        *,
        grace_seconds: float,
        on_started: Callable[[], None],
        on_stopping: Callable[[], None],
    ) -> None:
        super().__init__(
            uvicorn.Config(
                service,
                log_config=None,
                log_level="warning",
                access_log=False,
                http="h11",  # the other one that uvicorn would take if it were there has no limit
                h11_max_incomplete_event_size=MAX_HEAD_BYTES,
                timeout_graceful_shutdown=round(grace_seconds),
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
            )
        )
        self._on_started = on_started
        self._on_stopping = on_stopping

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._on_stopping()
        await super().shutdown(sockets)
