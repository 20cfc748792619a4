"""One trace over processes: told to a collector that is a real HTTP server, by real processes."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from app import tracing
from app.errors import InvalidRequest
from app.jobs.supervisor import child_environment
from app.settings import Settings
from tests.images import labelled_zip

PATIENCE_SECONDS = 240
SERVICE = "service.name"
ASKED_BY = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Collector:
    """Takes what is sent to it, and keeps it."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        told = self.requests

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                told.append(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def spans(self) -> list[tuple[str, Any]]:
        """Of which service, and the span."""
        return [
            (next(a.value.string_value for a in told.resource.attributes if a.key == SERVICE), span)
            for request in list(self.requests)
            for told in request.resource_spans
            for scope in told.scope_spans
            for span in scope.spans
        ]


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.stop()


@pytest.mark.engines("embedded")
def test_an_upload_and_all_that_comes_of_it_is_one_trace(
    settings: Settings, collector: Collector
) -> None:
    environment = child_environment(settings, os.environ) | {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    with subprocess.Popen(
        [sys.executable, "-m", "app.cli", "serve", "--port", "0", "--json"],
        stdout=subprocess.PIPE,
        env=environment,
    ) as process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        try:
            with httpx.Client(base_url=url) as client:
                job_id = client.post(
                    "/v1/tasks",
                    files={"archive": ("shapes.zip", labelled_zip(2, 10))},
                    headers={"traceparent": ASKED_BY},
                ).json()["job_id"]
                client.get("/healthz")
                give_up_at = time.monotonic() + PATIENCE_SECONDS
                while client.get(f"/v1/jobs/{job_id}").json()["finished_at"] is None:
                    assert time.monotonic() < give_up_at
                    time.sleep(0.2)
        finally:
            process.terminate()
    spans = {span.name: (service, span) for service, span in collector.spans()}
    service, request = spans["POST /v1/tasks"]
    assert service == "task2vec-api"
    assert request.trace_id.hex() == ASKED_BY.split("-")[1]
    assert request.parent_span_id.hex() == ASKED_BY.split("-")[2]
    assert "GET /healthz" not in spans

    names = ("outbox", "queue", "job embed_task", "intake", "features", "head", "fisher", "store")
    for name in names:
        service, span = spans[name]
        assert service == "task2vec-worker"
        assert span.trace_id == request.trace_id, name
    by_id = {span.span_id: (service, span.name) for service, span in collector.spans()}
    _, job = spans["job embed_task"]
    for name in ("outbox", "queue", "job embed_task"):
        # FastAPI's own spans, of the route's function, lie between the request and these.
        service, _ = by_id[spans[name][1].parent_span_id]
        assert service == "task2vec-api"
    for name in names[3:]:
        assert by_id[spans[name][1].parent_span_id] == ("task2vec-worker", "job embed_task")
    told = {each.key: each.value.string_value for each in job.attributes}
    assert (told["task2vec.job_id"], told["task2vec.state"]) == (job_id, "succeeded")
    phases = [spans[name][1] for name in names[3:]]
    for before, after in pairwise(phases):
        assert before.start_time_unix_nano <= before.end_time_unix_nano
        assert before.end_time_unix_nano <= after.start_time_unix_nano
    assert job.start_time_unix_nano <= phases[0].start_time_unix_nano
    assert phases[-1].end_time_unix_nano <= job.end_time_unix_nano


def test_without_an_endpoint_nothing_of_the_sdk_is_imported() -> None:
    code = (
        "import sys; from app import tracing; tracing.configure('api')\n"
        "with tracing.job('embed_task', None) as ended:\n"
        "    tracing.phase('intake'); ended('succeeded')\n"
        "assert tracing.traceparent() is None\n"
        "tracing.stop()\n"
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    environment = {name: each for name, each in os.environ.items() if not name.startswith("OTEL_")}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


@pytest.mark.parametrize(
    "variables",
    [
        {"OTEL_SDK_DISABLED": "true"},
        {"OTEL_TRACES_EXPORTER": "none"},
    ],
    ids=lambda variables: next(iter(variables)),
)
def test_what_turns_traces_off_does(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    tracing.configure("api")
    assert tracing.traceparent() is None


def test_a_protocol_that_is_not_spoken_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with pytest.raises(InvalidRequest, match="http/protobuf"):
        tracing.configure("api")
