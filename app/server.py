"""uvicorn, told what to do when the service is up and when it is to end."""

from __future__ import annotations

import socket
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI

from app.api.jobs import stop_streams

MAX_HEAD_BYTES = 64 * 2**10
"""Of a request's line and headers, address and parameters among them."""


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
