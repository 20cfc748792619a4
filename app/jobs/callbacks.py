"""Calls to those who asked to hear of a job's end, signed as Standard Webhooks has it.

At least once: a worker that is killed between a call and its note leaves it to be made again, under
the same `webhook-id`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import httpx

from app.errors import Forbidden
from app.jobs.pinned import pinned_transport
from app.sources import require_receiver
from app.store import callbacks
from app.store.callbacks import SIGNED_WITH, Call
from app.store.session import Database
from app.telemetry import log_event

AT_ONCE = 8
_TIMEOUT = httpx.Timeout(10.0)


def deliver(
    database: Database,
    prefixes: Sequence[str],
    transport: httpx.BaseTransport | None = None,
    *,
    networks: Sequence[str] = (),
) -> int:
    """Makes the calls that are due, each once; how many there were. None goes to an address that is
    neither public nor in `networks`."""
    with database.session(read_only=True) as session:
        due = callbacks.due(session, AT_ONCE)
    if not due:
        return 0
    transport = transport or pinned_transport(networks)
    with (
        # No proxy of the environment: it would look names up by itself.
        httpx.Client(transport=transport, timeout=_TIMEOUT, trust_env=False) as client,
        ThreadPoolExecutor(AT_ONCE) as threads,
    ):
        problems = list(threads.map(lambda call: _call(client, call, prefixes), due))
    for call, problem in zip(due, problems, strict=True):
        with database.session() as session:
            state = callbacks.note(session, call.seq, problem)
        if state in ("delivered", "failed"):
            log_event(f"callback.{state}", callback_id=call.id, problem=problem)
    return len(due)


def signature(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """`v1,` and the base64 of HMAC-SHA256 over `id.timestamp.body`."""
    key = base64.b64decode(secret.removeprefix(SIGNED_WITH))
    signed = f"{message_id}.{timestamp}.".encode() + body
    return f"v1,{base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()}"


def _call(client: httpx.Client, call: Call, prefixes: Sequence[str]) -> str | None:
    """What came in the way; None where the receiver took it."""
    timestamp = int(time.time())
    headers = {
        "content-type": "application/json",
        "webhook-id": call.id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signature(call.secret, call.id, timestamp, call.body),
    }
    try:
        require_receiver(call.url, prefixes)  # the operator may have changed it since
        with client.stream("POST", call.url, content=call.body, headers=headers) as response:
            status = response.status_code  # what else it says is not read
    except Forbidden as error:
        return error.detail
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return f"It did not answer ({type(error).__name__})."
    return None if 200 <= status < 300 else f"It answered {status}."
