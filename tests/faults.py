"""A way to a server that can be cut, held up and spoiled while it is in use."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Literal

Mode = Literal["pass", "away", "silent", "error", "cut"]

CUT_AFTER_BYTES = 1_000


class Proxy:
    """`away` closes connections, `silent` says nothing, `error` answers 503, and `cut` breaks off
    answers. A change closes those that are open."""

    def __init__(self, port: int) -> None:
        self._upstream = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self._mode: Mode = "pass"
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def set(self, mode: Mode) -> None:
        self._mode = mode
        self._close_open()

    def close(self) -> None:
        self._listener.close()
        self._close_open()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                came, _ = self._listener.accept()
                self.connections += 1
                if self._mode == "away":
                    came.close()
                    continue
                self._open.add(came)
                threading.Thread(target=self._serve, args=(came, self._mode), daemon=True).start()

    def _serve(self, came: socket.socket, mode: Mode) -> None:
        with suppress(OSError):
            if mode == "silent":
                while came.recv(65536):
                    pass
            elif mode == "error":
                while came.recv(65536):
                    came.sendall(b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\n\r\n")
            else:
                self._pass(came, CUT_AFTER_BYTES if mode == "cut" else None)
        came.close()

    def _pass(self, came: socket.socket, at_most: int | None) -> None:
        with socket.create_connection(self._upstream) as upstream:
            self._open.add(upstream)
            there = threading.Thread(target=_pump, args=(came, upstream), daemon=True)
            there.start()
            _pump(upstream, came, at_most)

    def _close_open(self) -> None:
        while self._open:
            with suppress(OSError):
                self._open.pop().shutdown(socket.SHUT_RDWR)


def _pump(source: socket.socket, target: socket.socket, at_most: int | None = None) -> None:
    left = at_most
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data if left is None else data[:left])
            if left is not None and (left := left - len(data)) <= 0:
                break
        target.shutdown(socket.SHUT_RDWR)
