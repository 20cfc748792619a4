"""A stand-in for the hub: what its file system asks for, answered from folders of this disk."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "a" * 40


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    datasets: dict[str, Path]
    asked: list[str]

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.asked.append(f"{self.command} {path}")
        parts = path.removeprefix("/api").removeprefix("/datasets/").split("/")
        folder = self.datasets.get("/".join(parts[:2]))
        if folder is None:
            self._send(404, b"", "RepoNotFound")
        elif parts[2:3] == ["resolve"]:
            self._send(200, Path(folder, *parts[4:]).read_bytes())
        elif parts[2:3] == ["tree"]:
            self._send(200, json.dumps(list(self._tree(folder))).encode())
        else:
            self._send(200, json.dumps({"id": "/".join(parts[:2]), "sha": COMMIT}).encode())

    def do_HEAD(self) -> None:
        self.do_GET()

    def _tree(self, folder: Path) -> Iterator[dict[str, Any]]:
        for file in sorted(folder.rglob("*")):
            path = file.relative_to(folder).as_posix()
            if file.is_file():
                yield {"type": "file", "oid": "0" * 40, "size": file.stat().st_size, "path": path}

    def _send(self, status: int, body: bytes, error: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"0"')
        self.send_header("X-Repo-Commit", COMMIT)
        if error:
            self.send_header("X-Error-Code", error)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def hub(datasets: dict[str, Path]) -> Iterator[tuple[str, list[str]]]:
    """Its address, and what it was asked for so far."""
    asked: list[str] = []
    answers = type("_", (_Answers,), {"datasets": datasets, "asked": asked})
    with ThreadingHTTPServer(("127.0.0.1", 0), answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
