"""The contract in JSON, as the command line reads it."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, Self

from app.client import direct
from app.client.blocking import answering, listing, run
from app.client.transports import Blocking
from app.client.wire import Wire


class Client:
    def __init__(
        self,
        server: str,
        key: str | None = None,
        *,
        transport: Any = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        opened = partial(Blocking, sleep=sleep)
        self._awaited = Wire(opened, server, key, transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        run(self._awaited.close())

    get = answering(Wire.get)
    download = answering(Wire.download)
    post = answering(Wire.post)
    post_bytes = answering(Wire.post_bytes)
    patch = answering(Wire.patch)
    delete = answering(Wire.delete)
    pages = listing(Wire.pages)
    tables = listing(Wire.tables)
    upload = answering(Wire.upload)
    send_task = answering(direct.send_task)
    find = answering(Wire.find)
    find_task = answering(Wire.find_task)
    follow = listing(Wire.follow)
