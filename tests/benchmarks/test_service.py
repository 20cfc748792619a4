"""The load benchmark's own figures: what counts as an error, how memory's slope is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import httpx
import numpy as np
import pytest

from benchmarks import service
from benchmarks.service import Load, empty_route, one_at_a_time, press


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[httpx.Response]]:
    """What a server would answer, one after the other, and then for ever 200."""
    queue: list[httpx.Response] = []
    client = httpx.AsyncClient

    def handle(_: httpx.Request) -> httpx.Response:
        return queue.pop(0) if queue else httpx.Response(200)

    def mocked(**_: object) -> httpx.AsyncClient:
        return client(transport=httpx.MockTransport(handle))

    monkeypatch.setattr(service.httpx, "AsyncClient", mocked)
    monkeypatch.setattr(service, "THINKS_SECONDS", 0.01)
    yield queue


def pressed() -> Load:
    return asyncio.run(press(["http://host"], ["t"], {"task": 1.0}, 2, 0.5))


def test_backpressure_is_no_error_and_all_else_is(answers: list[httpx.Response]) -> None:
    soon = {"Retry-After": "0"}
    answers += [
        httpx.Response(429, headers=soon),
        httpx.Response(503, headers=soon),
        httpx.Response(503, text="for how long?"),
        httpx.Response(500, text="broken"),
        httpx.Response(404, text="who?"),
    ]
    load = pressed()
    assert load.pushed_back == {"task": 2}
    assert load.errors == {
        "task: 503 for how long?": 1,
        "task: 500 broken": 1,
        "task: 404 who?": 1,
    }
    assert len(load.milliseconds["task"]) > 0


def test_memory_that_grows_shows_in_the_slope_and_a_warm_up_does_not() -> None:
    minutes = np.linspace(0, 4, 41)
    warming = np.where(minutes < 1, 100 + 50 * minutes, 150.0)
    grows = 150 + 7 * minutes
    assert service._memory(np.stack([minutes, warming], 1))["mib_a_minute"] == 0
    assert service._memory(np.stack([minutes, grows], 1))["mib_a_minute"] == 7


def test_an_empty_route_is_served_and_timed() -> None:
    with empty_route() as url:
        taken = one_at_a_time(url, "/", 3)
    assert len(taken) == 3
    assert min(taken) > 0


@pytest.mark.slow
def test_the_last_line_tells_routes_memory_and_the_wait_of_jobs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(service, "IDLE_JOBS", 1)
    monkeypatch.setattr(service, "ALONE", 1)
    monkeypatch.setattr(service, "MEMORY_SECONDS", 0.5)
    assert service.main(["--clients", "4", "--minutes", "0.1"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["job_starts_after_ms"]["p50"] > 0
    assert set(told["alone_ms"]) == {
        *("neighbours", "estimates", "task", "empty route"),
        "pgvector, one statement",
    }
    for phase in ("questions", "with_embedding"):
        assert told[phase]["errors"] == {}
        assert set(told[phase]["memory"]) == {"api-1", "api-2", "worker-1", "worker-2"}
