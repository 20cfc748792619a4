"""uvicorn, told what to do when the service is up and when it is to end."""

from __future__ import annotations

import ctypes
import socket
from collections.abc import Callable
from contextlib import suppress

import uvicorn
from fastapi import FastAPI

from app.api.jobs import stop_streams

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
    """Calls `on_started` once the service answers, and ends open streams when it is told to stop.

    uvicorn would wait for streams to end, and a stream waits for its job.
    """

    def __init__(
        self, service: FastAPI, *, grace_seconds: float, on_started: Callable[[], None]
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
        self._service = service
        self._on_started = on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        stop_streams(self._service)
        await super().shutdown(sockets)
