"""One trace of a job: from the request that asked for it, over outbox and queue, to each of its
phases in whatever worker took it up.

Spans go by OTLP to where the standard OTEL_* variables say. Where they name no endpoint nothing of
OpenTelemetry's SDK is imported, and whatever is asked for here is over at once.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import TYPE_CHECKING

from app import __version__
from app.errors import InvalidRequest, Unavailable

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer

STOP_SECONDS = 3.0  # for what was not sent yet, to a collector that may be gone

_provider: TracerProvider | None = None
_tracer: Tracer | None = None
_phases: ContextVar[_Phases | None] = ContextVar("phases", default=None)


def configure(role: str) -> None:
    """`role` names the process, `task2vec-ROLE`, unless OTEL_SERVICE_NAME does."""
    global _provider, _tracer
    if not _is_asked_for():
        return
    protocol = _of_traces("PROTOCOL") or "http/protobuf"
    if protocol != "http/protobuf":
        raise InvalidRequest(
            "setting-invalid",
            f"OTEL_EXPORTER_OTLP_PROTOCOL: {protocol} is not spoken here.",
            "Set it to http/protobuf, and the endpoint to the collector's port for that (4318).",
        )
    try:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as error:
        raise Unavailable(
            "extra-missing",
            f"Traces are asked for, and need a package that is not installed ({error.name}).",
            "Run: pip install 'task2vec-service[otel]', or unset OTEL_EXPORTER_OTLP_ENDPOINT.",
        ) from error
    attributes: dict[str, str] = {"service.version": __version__}
    if not os.environ.get("OTEL_SERVICE_NAME"):
        attributes["service.name"] = f"task2vec-{role}"
    _provider = TracerProvider(resource=Resource.create(attributes))
    _provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(_provider)  # FastAPI has a span for every request from here on
    _tracer = _provider.get_tracer("task2vec", __version__)


def stop() -> None:
    """Sends what is left, unless that takes long."""
    if _provider is not None:
        last = threading.Thread(target=_provider.shutdown, daemon=True)
        last.start()
        last.join(STOP_SECONDS)


def traceparent() -> str | None:
    """Of what is being done, for whoever goes on with it."""
    if _tracer is None:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get("traceparent")


def waited(name: str, parent: str | None, since: datetime) -> None:
    """A span from then until now."""
    if _tracer is not None:
        began = int(since.timestamp() * 1e9)
        _tracer.start_span(name, _context(parent), start_time=began).end()


@contextmanager
def job(kind: str, parent: str | None, **attributes: str | int) -> Iterator[Callable[[str], None]]:
    """The span of an attempt at a job; what it gives takes the state that the job ended in."""
    if _tracer is None:
        yield lambda _state: None
        return
    from opentelemetry.trace import SpanKind, StatusCode

    told = {f"task2vec.{name}": value for name, value in attributes.items()}
    with _tracer.start_as_current_span(
        f"job {kind}", _context(parent), kind=SpanKind.CONSUMER, attributes=told
    ) as span:

        def ended(state: str) -> None:
            span.set_attribute("task2vec.state", state)
            if state == "failed":
                span.set_status(StatusCode.ERROR)

        phases = _Phases(_tracer)
        token = _phases.set(phases)
        try:
            yield ended
        finally:
            phases.end()
            _phases.reset(token)


def phase(name: str) -> None:
    """The job at hand is at that now; to be told again and again."""
    phases = _phases.get()
    if phases is not None:
        phases.enter(name)


class _Phases:
    """A phase is first heard of when some of it is done, so its span begins where the last thing
    was heard."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._name = ""
        self._span: Span | None = None
        self._heard_at = time.time_ns()

    def enter(self, name: str) -> None:
        if name != self._name:
            if self._span is not None:
                self._span.end(self._heard_at)
            self._name = name
            self._span = self._tracer.start_span(name, start_time=self._heard_at)
        self._heard_at = time.time_ns()

    def end(self) -> None:
        if self._span is not None:
            self._span.end()


def _context(parent: str | None) -> Context:
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({"traceparent": parent or ""})


def _is_asked_for() -> bool:
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    exporter = os.environ.get("OTEL_TRACES_EXPORTER") or "otlp"
    return exporter == "otlp" and _of_traces("ENDPOINT") != ""


def _of_traces(name: str) -> str:
    specific = os.environ.get(f"OTEL_EXPORTER_OTLP_TRACES_{name}")
    return specific or os.environ.get(f"OTEL_EXPORTER_OTLP_{name}") or ""
