"""Calls to a real server that fails, redirects or listens; only https is rewritten to its address."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from sqlalchemy import select, update

from app.errors import Conflict, Forbidden
from app.jobs import callbacks as calls
from app.sources import require_receiver
from app.store import callbacks, jobs
from app.store.session import Database
from app.store.tables import Callback, Job, TenantSettings, now
from tests.store.samples import accept_task

PREFIXES = ("https://hooks.example/t2v/",)
URL = "https://hooks.example/t2v/done"


@dataclass
class Receiver:
    """What came in; answers with `statuses` in turn, the last one for ever."""

    statuses: list[int]
    heard: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    port: int = 0

    @property
    def transport(self) -> httpx.BaseTransport:
        port = self.port

        class Rewritten(httpx.HTTPTransport):
            def handle_request(self, request: httpx.Request) -> httpx.Response:
                request.url = request.url.copy_with(scheme="http", host="127.0.0.1", port=port)
                return super().handle_request(request)

        return Rewritten()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    told = Receiver([200])

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            told.heard.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            status = told.statuses.pop(0) if len(told.statuses) > 1 else told.statuses[0]
            self.send_response(status)
            if status == 307:
                self.send_header("location", "/t2v/elsewhere")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Quietly."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        told.port = server.server_port
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield told
        server.shutdown()
        thread.join()


@pytest.fixture
def job_id(database: Database) -> str:
    """Of a job whose end is to be told."""
    with database.session() as session:
        callbacks.renew_secret(session, "acme")
        _, job = accept_task(session)
        callbacks.ask(session, job, URL)
        return job.id


def end(database: Database, job_id: str) -> None:
    with database.session() as session:
        jobs.request_cancel(session, "acme", job_id)


def call(database: Database, receiver: Receiver) -> int:
    """As if every pause were over."""
    with database.session() as session:
        session.execute(update(Callback).values(due_at=None))
    return calls.deliver(database, PREFIXES, receiver.transport)


def row(database: Database) -> Callback:
    with database.session(read_only=True) as session:
        return session.scalars(select(Callback)).one()


def test_nobody_is_called_before_the_job_has_ended(
    database: Database, receiver: Receiver, job_id: str
) -> None:
    assert call(database, receiver) == 0
    end(database, job_id)
    assert call(database, receiver) == 1
    assert call(database, receiver) == 0
    assert len(receiver.heard) == 1


def test_a_call_says_what_ended_and_is_signed_with_the_tenants_secret(
    database: Database, receiver: Receiver, job_id: str
) -> None:
    end(database, job_id)
    call(database, receiver)
    [(path, headers, body)] = receiver.heard
    assert path == "/t2v/done"
    told = json.loads(body)
    assert (told["type"], told["data"]["job_id"]) == ("job.cancelled", job_id)
    assert "cats" not in body.decode()  # its name is nobody's business who has no key
    with database.session(read_only=True) as session:
        secret = session.scalars(select(TenantSettings.callback_secret)).one()
    assert headers["webhook-id"] == row(database).id
    assert headers["webhook-signature"] == calls.signature(
        secret, headers["webhook-id"], int(headers["webhook-timestamp"]), body
    )


def test_the_signature_is_that_of_standard_webhooks() -> None:
    """The example of its libraries."""
    assert (
        calls.signature(
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1614265330,
            b'{"test": 2432232314}',
        )
        == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    )


def test_a_receiver_that_fails_twice_is_called_until_it_listens(
    database: Database, receiver: Receiver, job_id: str
) -> None:
    receiver.statuses = [503, 500, 204]
    end(database, job_id)
    call(database, receiver)
    first = row(database)
    assert (first.state, first.attempts, first.problem) == ("pending", 1, "It answered 503.")
    assert (
        calls.deliver(database, PREFIXES, receiver.transport) == 0
    )  # not before its pause is over
    call(database, receiver)
    second = row(database)
    assert second.due_at - now() > 3 * (first.due_at - now())
    call(database, receiver)
    last = row(database)
    assert (last.state, last.attempts, last.problem) == ("delivered", 3, None)
    assert len({headers["webhook-id"] for _, headers, _ in receiver.heard}) == 1
    assert len({body for _, _, body in receiver.heard}) == 1
    assert call(database, receiver) == 0


def test_a_receiver_that_never_listens_is_given_up_after_a_day(
    database: Database, receiver: Receiver, job_id: str
) -> None:
    receiver.statuses = [500]
    end(database, job_id)
    for _ in range(8):
        call(database, receiver)
    tried = row(database)
    assert (tried.state, tried.attempts) == ("pending", 8)
    assert tried.due_at - now() <= callbacks.LONGEST_PAUSE
    with database.session() as session:
        long_ago = now() - callbacks.GIVEN_UP - timedelta(minutes=1)
        session.execute(update(Job).values(finished_at=long_ago))
    call(database, receiver)
    assert (row(database).state, row(database).problem) == ("failed", "It answered 500.")
    assert call(database, receiver) == 0


def test_a_worker_that_dies_before_its_note_leaves_the_call_to_be_made_again(
    database: Database, receiver: Receiver, job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    end(database, job_id)
    with monkeypatch.context() as patch:
        patch.setattr(callbacks, "note", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            call(database, receiver)
    call(database, receiver)
    assert [headers["webhook-id"] for _, headers, _ in receiver.heard] == [row(database).id] * 2
    assert row(database).state == "delivered"


def test_an_address_that_is_not_public_is_not_called(
    database: Database, job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.jobs.callbacks.require_receiver", lambda *_: None)
    with database.session() as session:
        session.execute(update(Callback).values(url="https://127.0.0.1:1/t2v"))
    end(database, job_id)
    calls.deliver(database, PREFIXES)
    assert row(database).problem == "127.0.0.1 has an address that is not public."
    with database.session() as session:
        session.execute(update(Callback).values(due_at=None))
    calls.deliver(database, PREFIXES, networks=("127.0.0.0/8",))
    assert row(database).problem == "It did not answer (ConnectError)."


def test_no_redirect_is_followed(database: Database, receiver: Receiver, job_id: str) -> None:
    receiver.statuses = [307]
    end(database, job_id)
    call(database, receiver)
    assert [path for path, _, _ in receiver.heard] == ["/t2v/done"]
    assert row(database).problem == "It answered 307."


def test_a_prefix_that_is_no_longer_allowed_is_not_called(
    database: Database, receiver: Receiver, job_id: str
) -> None:
    end(database, job_id)
    calls.deliver(database, ("https://other.example/",), receiver.transport)
    assert receiver.heard == []
    assert "no address that this service may call" in row(database).problem


def test_nobody_who_listens_is_a_matter_of_trying_again(
    database: Database, receiver: Receiver, job_id: str
) -> None:
    end(database, job_id)
    receiver.port = 1
    call(database, receiver)
    assert (row(database).state, row(database).problem) == (
        "pending",
        "It did not answer (ConnectError).",
    )


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example/t2v/done",
        "file:///t2v/done",
        "https://hooks.example/other",
        "https://hooks.example/t2v/../other",
        "https://hooks.example:8443/t2v/done",
        "https://name:word@hooks.example/t2v/done",
        "https://127.0.0.1/t2v/done",
        "nonsense",
    ],
)
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(Forbidden, match="may call"):
        require_receiver(url, (*PREFIXES, "file:///t2v"))


def test_who_has_no_secret_is_told_to_make_one(database: Database) -> None:
    with database.session() as session:
        _, job = accept_task(session)
        with pytest.raises(Conflict, match="no secret"):
            callbacks.ask(session, job, URL)


def test_a_call_goes_with_its_task(database: Database, receiver: Receiver, job_id: str) -> None:
    end(database, job_id)
    with database.session() as session:
        session.execute(Job.__table__.delete())
    assert call(database, receiver) == 0
