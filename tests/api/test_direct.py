"""`embed` of a large archive: around the service, where that is offered, and through it elsewhere."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.client import Client, direct
from app.client.transports import Transport
from app.errors import Conflict, Unavailable
from tests.api.conftest import Service, archive_of
from tests.api.test_parts import PART_BYTES, in_store

pytestmark = pytest.mark.engines("servers")


class Sender:
    """What `task2vec embed` does with an archive, and what it hears."""

    def __init__(self, service: Service, path: Path) -> None:
        self.path = path
        self.heard: list[tuple[str, int]] = []
        self.detours: list[str] = []
        self.puts: list[str] = []
        self._service = service

    def send(self, **metadata: Any) -> dict[str, Any]:
        transport = httpx.MockTransport(self._forward)
        with Client("http://localhost", transport=transport, sleep=lambda _: None) as client:
            return client.send_task(
                self.path,
                metadata,
                on_progress=lambda what, done: self.heard.append((what, done)),
                on_detour=self.detours.append,
            )

    def _forward(self, request: httpx.Request) -> httpx.Response:
        answer = self._service.client.request(
            request.method,
            str(request.url),
            content=request.read(),
            headers=dict(request.headers),
        )
        return httpx.Response(
            answer.status_code, headers=dict(answer.headers), content=answer.content
        )


@pytest.fixture
def sender(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sender:
    """Of an archive of three parts."""
    path = tmp_path / "animals.zip"
    files = {"cat/1.png": os.urandom(2 * PART_BYTES), "dog/2.png": b"second"}
    path.write_bytes(archive_of(files))
    monkeypatch.setattr(direct, "LARGE_BYTES", 2 * PART_BYTES)
    monkeypatch.setattr(direct, "PART_BYTES", PART_BYTES)
    found = Sender(service, path)
    put = direct._put

    async def counted(store: Transport, part: dict[str, Any], piece: bytes) -> None:
        found.puts.append(part["url"])
        await put(store, part, piece)

    monkeypatch.setattr(direct, "_put", counted)
    return found


def test_a_large_archive_goes_straight_into_the_store(service: Service, sender: Sender) -> None:
    accepted = sender.send(name="animals")
    task = service.client.get(f"/v1/tasks/{accepted['id']}").json()
    assert (task["name"], task["job_id"]) == ("animals", accepted["job_id"])
    size = sender.path.stat().st_size
    assert sender.heard == [
        (what, done)
        for what in ("reading", "sending")
        for done in (PART_BYTES, 2 * PART_BYTES, size)
    ]
    assert (len(sender.puts), sender.detours) == (3, [])
    with service.resources.blobs.open(service.blobs()[0]) as stream:
        assert stream.read() == sender.path.read_bytes()


def test_a_folder_goes_as_the_archive_that_it_makes(
    service: Service, sender: Sender, tmp_path: Path
) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        (tmp_path / "pets" / name / "1.png").write_bytes(os.urandom(PART_BYTES + 9))
    sender.path = tmp_path / "pets"
    accepted = sender.send()
    assert service.client.get(f"/v1/tasks/{accepted['id']}").json()["name"] == "pets"
    assert len(sender.puts) == 3


def test_a_small_archive_goes_through_the_service(service: Service, sender: Sender) -> None:
    sender.path.write_bytes(archive_of({"cat/1.png": b"first", "dog/2.png": b"second"}))
    assert service.client.get(f"/v1/tasks/{sender.send()['id']}").json()["name"] == "animals"
    assert sender.puts == []


@pytest.mark.engines("embedded")
def test_a_service_with_a_disk_of_its_own_is_sent_the_archive(
    service: Service, sender: Sender
) -> None:
    assert service.client.get(f"/v1/tasks/{sender.send()['id']}").json()["name"] == "animals"
    assert sender.puts == []


def test_an_interrupted_command_goes_on_where_it_stopped(
    service: Service, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = httpx.Client.send
    gone = httpx.ConnectError("network is unreachable")

    def cut(http: httpx.Client, request: httpx.Request, **how: Any) -> httpx.Response:
        if "partNumber=2" in str(request.url):
            raise gone
        return send(http, request, **how)

    with monkeypatch.context() as patch:
        patch.setattr(httpx.Client, "send", cut)
        with pytest.raises(Unavailable, match="goes on where it stopped"):
            sender.send()
    assert sender.detours == []
    sender.puts.clear()
    accepted = sender.send()
    assert len(sender.puts) == 2
    assert accepted["id"] in service.client.get("/v1/tasks").text


def test_a_store_that_cannot_be_reached_from_here_is_told_of_and_gone_around(
    service: Service, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nowhere = f"http://127.0.0.1:{closed.getsockname()[1]}"
    signer = service.resources.blobs._bucket.signer
    monkeypatch.setattr(
        signer,
        "generate_presigned_url",
        lambda *_, **__: f"{nowhere}/?X-Amz-Signature=secret",
    )
    accepted = sender.send()
    assert service.client.get(f"/v1/tasks/{accepted['id']}").json()["name"] == "animals"
    (told,) = sender.detours
    assert "through the service" in told
    assert "secret" not in told
    assert in_store(service) == ([], [])


def test_what_the_store_refuses_is_told_without_the_signed_address(
    sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = httpx.Client.send

    def refuse(http: httpx.Client, request: httpx.Request, **how: Any) -> httpx.Response:
        if "X-Amz-Signature" in str(request.url):
            return httpx.Response(403, request=request)
        return send(http, request, **how)

    monkeypatch.setattr(httpx.Client, "send", refuse)
    with pytest.raises(Unavailable, match="it answered 403") as told:
        sender.send()
    assert "Signature" not in str(told.value)


def test_an_archive_that_changes_while_it_is_sent_is_not_mixed(
    sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = direct._read
    passes: list[int] = []

    def rewritten(archive: Path, part_bytes: int) -> Any:
        passes.append(1)
        if len(passes) == 2:
            with archive.open("r+b") as file:
                file.seek(PART_BYTES + 1)
                file.write(b"other bytes")
        return read(archive, part_bytes)

    monkeypatch.setattr(direct, "_read", rewritten)
    with pytest.raises(Conflict, match="has changed"):
        sender.send()
