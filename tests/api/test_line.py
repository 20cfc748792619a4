from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, BinaryIO

import pytest

from app.api import neighbours
from app.api.line import Line, Lines
from app.errors import Unavailable
from app.store.session import POOLED_CONNECTIONS
from tests.api.conftest import Service, assert_problem


@contextmanager
def many_asking(
    service: Service, task: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[Any]]:
    """For neighbours, none of which are told before this is over; then the answers are listed."""
    go_on, inside = threading.Event(), threading.Semaphore(0)
    rank = neighbours.rank

    def slow(*args: Any, **named: Any) -> Any:
        inside.release()
        assert go_on.wait(60)
        return rank(*args, **named)

    monkeypatch.setattr(neighbours, "rank", slow)
    answers: list[Any] = []

    def ask() -> None:
        answers.append(service.client.get(f"/v1/tasks/{task}/neighbours"))

    with ThreadPoolExecutor(number) as threads:
        for _ in range(number):
            threads.submit(ask)
        assert inside.acquire(timeout=60)
        try:
            yield answers
        finally:
            go_on.set()


def test_a_task_is_told_while_more_ask_for_neighbours_than_there_are_threads(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = [service.ready(seed) for seed in range(2)]
    number = POOLED_CONNECTIONS + 20
    with many_asking(service, tasks[0], number, monkeypatch) as answers:
        told = service.client.get(f"/v1/tasks/{tasks[0]}")
        assert told.status_code == 200
        assert answers == []
    assert [answer.status_code for answer in answers] == [200] * number


def test_whose_turn_does_not_come_is_asked_to_come_again(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = service.ready()
    line = Line("searches", at_once=1, patience_seconds=0.05)
    service.client.app.state.lines = Lines(answers=line)
    with many_asking(service, task, 1, monkeypatch):
        for path in ("neighbours", "estimates", "plan", "card"):
            busy = service.client.get(f"/v1/tasks/{task}/{path}")
            assert_problem(busy, 503, "service-busy")
            assert busy.headers["Retry-After"] == "1"
        assert "within 0.05 s" in service.client.get(f"/tasks/{task}").text
    assert service.client.get(f"/v1/tasks/{task}/neighbours").status_code == 200


def test_a_task_is_told_while_the_blob_store_takes_its_time(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, go_on, put = service.ready(), threading.Event(), service.resources.blobs.put

    def slow(file: BinaryIO) -> Any:
        assert go_on.wait(60)
        return put(file)

    monkeypatch.setattr(service.resources.blobs, "put", slow)
    number = POOLED_CONNECTIONS + 20
    with ThreadPoolExecutor(number) as threads:
        sent = [threads.submit(service.send, name=str(n)) for n in range(number)]
        told = service.client.get(f"/v1/tasks/{task}")
        assert told.status_code == 200
        assert not any(each.done() for each in sent)
        go_on.set()
        assert [each.result().status_code for each in sent] == [202] * number


@pytest.mark.parametrize("end", [RuntimeError, asyncio.CancelledError, Unavailable])
def test_a_turn_ends_however_it_ends(end: Callable[..., BaseException]) -> None:
    async def turns() -> None:
        line = Line("deeds", at_once=1, patience_seconds=1)
        for _ in range(3):
            with pytest.raises(BaseException) as raised:
                async with line.turn():
                    raise end("a", "b", "c") if end is Unavailable else end
            assert isinstance(raised.value, end)

    asyncio.run(turns())
