"""The blob store is away, slow or spoilt while the service runs: said, survived, and over again."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.config import Config
from sqlalchemy import func, select

from app.store import finetunes, s3_bucket
from app.store.blobs import UNAVAILABLE
from app.store.tables import Archive, Job, Outbox, Task
from tests.api.conftest import Service, assert_problem
from tests.api.runs import ended
from tests.api.test_parts import asked
from tests.faults import Mode, Proxy

pytestmark = pytest.mark.engines("servers")


@pytest.fixture
def proxy(s3: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    port = urlsplit(os.environ["AWS_ENDPOINT_URL_S3"]).port
    assert port is not None
    proxy = Proxy(port)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
    for name in ("PATIENCE", "IMPATIENCE"):
        hasty = getattr(s3_bucket, name).merge(Config(read_timeout=0.5))
        monkeypatch.setattr(s3_bucket, name, hasty)
    monkeypatch.setattr(s3_bucket, "PULSE_SECONDS", 0.0)
    monkeypatch.setattr(s3_bucket, "SILENT_SECONDS", 0.0)
    yield proxy
    proxy.close()


@pytest.fixture
def service(proxy: Proxy, serve: Callable[..., Service]) -> Service:
    return serve()


def rows(service: Service) -> list[int]:
    with service.resources.database.session(read_only=True) as session:
        return [
            session.scalar(select(func.count()).select_from(table).where(*own)) or 0
            for table, own in (
                (Task, [Task.tenant == "local"]),
                (Archive, []),
                (Job, []),
                (Outbox, []),
            )
        ]


def assert_later(answer: Any) -> None:
    assert_problem(answer, 503, UNAVAILABLE)
    assert int(answer.headers["retry-after"]) > 0


@pytest.mark.parametrize("mode", ["away", "silent", "error"])
def test_what_is_sent_meanwhile_is_to_be_sent_again_and_leaves_nothing(
    service: Service, proxy: Proxy, mode: Mode
) -> None:
    proxy.set(mode)
    assert_later(service.send())
    assert_later(service.client.post("/v1/uploads", json=asked()))
    assert rows(service) == [0, 0, 0, 0]
    assert service.client.get("/v1/tasks").json()["items"] == [], "what needs no blobs goes on"
    proxy.set("pass")
    assert service.blobs() == []
    assert service.send().status_code == 202
    assert rows(service) == [1, 1, 1, 1]


@pytest.mark.parametrize("mode", ["away", "silent", "error"])
def test_the_service_is_ready_while_its_store_answers(
    service: Service, proxy: Proxy, mode: Mode
) -> None:
    service.warm_up()
    assert service.client.get("/readyz").status_code == 200
    proxy.set(mode)
    answer = service.client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["reasons"] == ["the store of archives does not answer"]
    assert service.client.get("/healthz").status_code == 200
    proxy.set("pass")
    assert service.client.get("/readyz").json() == {"ready": True, "reasons": []}


def test_readiness_asks_the_store_once_in_a_while(
    service: Service, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_bucket, "PULSE_SECONDS", 60.0)
    service.warm_up()
    assert service.client.get("/readyz").status_code == 200
    proxy.set("away")
    assert service.client.get("/readyz").status_code == 200


def test_a_store_that_was_silent_is_left_alone_for_a_while(
    service: Service, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_bucket, "SILENT_SECONDS", 60.0)
    proxy.set("silent")
    assert_later(service.send())
    before = proxy.connections
    assert_later(service.send())
    assert proxy.connections == before
    proxy.set("pass")
    service.client.get("/readyz")  # which hears that it is back
    assert service.send().status_code == 202


def test_a_model_whose_way_is_cut_is_an_error_and_no_torn_file(
    service: Service, proxy: Proxy
) -> None:
    run = ended(service, service.ready())
    with service.resources.database.session() as session:
        big = service.resources.blobs.put(io.BytesIO(os.urandom(100_000)))
        finetunes.keep(session, finetunes.get(session, "local", run), {"model": big})
    address = f"/v1/finetunes/{run}/model"
    assert len(service.client.get(address).content) == big.size_bytes
    proxy.set("cut")
    assert_later(service.client.get(address))
    proxy.set("away")
    assert_later(service.client.get(address))


def test_a_task_is_deleted_though_its_images_cannot_be(service: Service, proxy: Proxy) -> None:
    task = service.ready()
    proxy.set("away")
    assert service.client.delete(f"/v1/tasks/{task}").status_code == 204
    proxy.set("pass")
    assert service.client.get(f"/v1/tasks/{task}").status_code == 404
    assert len(service.blobs()) == 1, "left to housekeeping"
