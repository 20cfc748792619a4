"""A service that is told to stop: what is on its way is answered, and nobody is sent to it."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select

from app.api.jobs import stop_streams
from app.api.main import create_app
from app.jobs.supervisor import child_environment
from app.server import Server, listening
from app.settings import Settings
from app.store.session import Database
from app.store.tables import Task
from tests.api.conftest import ARCHIVE, Service
from tests.commands import with_command

PATIENCE_SECONDS = 60


def wait_until_refused(address: tuple[str, int]) -> None:
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    with suppress(ConnectionRefusedError):
        while time.monotonic() < give_up_at:
            with suppress(ConnectionResetError):
                socket.create_connection(address, PATIENCE_SECONDS).close()
            time.sleep(0.02)
        pytest.fail("it goes on to listen")


@contextmanager
def serve(settings: Settings, folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The service as a user starts it, and its address; killed at the end."""
    environment = with_command(folder, child_environment(settings, {}))
    command = ["task2vec", "serve", "--no-worker", "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        try:
            assert process.stdout is not None
            yield process, json.loads(process.stdout.readline())["url"]
        finally:
            process.kill()


def test_an_upload_half_of_which_is_there_when_the_service_is_stopped_is_answered_in_full(
    settings: Settings, tmp_path: Path
) -> None:
    patient = settings.model_copy(update={"shutdown_grace_seconds": PATIENCE_SECONDS})
    with serve(patient, tmp_path / "bin") as (process, url):
        sent = httpx.Request(
            "POST",
            f"{url}/v1/tasks",
            files={"archive": ("animals.zip", ARCHIVE, "application/zip")},
            headers={"Expect": "100-continue"},  # which is answered by whoever begins to read
        )
        head = [f"{name}: {value}" for name, value in sent.headers.items()]
        body = sent.read()
        address = ("127.0.0.1", sent.url.port or 0)
        with socket.create_connection(address, PATIENCE_SECONDS) as upload:
            upload.sendall("\r\n".join(["POST /v1/tasks HTTP/1.1", *head, "", ""]).encode())
            upload.sendall(body[: len(body) // 2])
            assert upload.recv(1000).startswith(b"HTTP/1.1 100 ")
            process.send_signal(signal.SIGTERM)
            wait_until_refused(address)
            time.sleep(0.5)  # a service that waits for nobody has hung up by then
            upload.sendall(body[len(body) // 2 :])
            answer = http.client.HTTPResponse(upload)
            answer.begin()
            accepted = json.loads(answer.read())
        assert process.wait(PATIENCE_SECONDS) == 0
    assert answer.status == 202, accepted
    database = Database(settings.store_url)
    with database.session(read_only=True) as session:
        assert session.scalars(select(Task.id).where(Task.id == accepted["id"])).all()
    database.dispose()


def test_who_asks_while_the_service_is_about_to_stop_is_told_that_it_is_not_ready(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = create_app(settings)
    started, asked = threading.Event(), threading.Event()
    server = Server(
        service,
        grace_seconds=PATIENCE_SECONDS,
        on_started=started.set,
        on_stopping=partial(stop_streams, service),
    )
    listener = listening("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"

    def answers_late() -> bool:
        asked.set()
        stopping: threading.Event = service.state.stopping
        return stopping.wait(PATIENCE_SECONDS)

    with ThreadPoolExecutor() as pool, httpx.Client(base_url=url, trust_env=False) as client:
        pool.submit(server.run, [listener])
        try:
            assert started.wait(PATIENCE_SECONDS)
            Service(client, service.state.resources).warm_up()
            assert client.get("/readyz").json() == {"ready": True, "reasons": []}
            monkeypatch.setattr(service.state.resources.blobs, "answers", answers_late)
            answering = pool.submit(client.get, "/readyz", timeout=PATIENCE_SECONDS)
            assert asked.wait(PATIENCE_SECONDS)
        finally:
            server.should_exit = True
        answer = answering.result()
    assert answer.status_code == 503
    assert answer.json() == {"ready": False, "reasons": ["the service is stopping"]}
