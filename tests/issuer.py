"""A provider of tokens on this machine: a discovery document, its keys, and what it signs."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, RSAKey

AUDIENCE = "task2vec"


class Issuer:
    """`asked` counts what was asked of it; while it is not `up` it answers 500."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.up = True
        self.keys = [new_key("first")]
        self.changes: dict[str, Any] = {}  # of the discovery document
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked.append(self.path)
                content = json.dumps(issuer.answer(self.path)).encode()
                self.send_response(200 if issuer.up else 500)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, path: str) -> dict[str, Any]:
        if path == "/keys":
            return dict(KeySet(self.keys).as_dict(private=False))
        return {"issuer": self.url, "jwks_uri": f"{self.url}/keys", **self.changes}

    def token(
        self, key: Any = None, algorithm: str = "RS256", without: str = "", **changes: Any
    ) -> str:
        claims = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "ann",
            "exp": int(time.time()) + 60,
            "tenant": "acme",
            "scope": "openid write",
            **changes,
        }
        claims.pop(without, None)
        key = key or self.keys[0]
        return jwt.encode({"alg": algorithm, "kid": key.kid}, claims, key, [algorithm])


def new_key(kid: str, kind: type[RSAKey] | type[ECKey] = RSAKey) -> Any:
    size: Any = 2048 if kind is RSAKey else "P-256"
    return kind.generate_key(size, {"kid": kid, "use": "sig"})


@contextmanager
def local_issuer() -> Iterator[Issuer]:
    issuer = Issuer()
    thread = threading.Thread(target=issuer.server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield issuer
    finally:
        issuer.server.shutdown()
        issuer.server.server_close()
        thread.join()
