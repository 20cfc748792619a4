"""Loads the running service: how fast each route answers, what a job waits, how memory goes.

    python -m benchmarks.service                        200 clients, two phases of three minutes
    python -m benchmarks.service --clients 20 --minutes 0.2

Two APIs and two workers on PostgreSQL, pgvector and S3 (moto), which this starts, with the cards
and the reference library that are shipped. First, of one client: jobs sent to an idle queue, from
their acceptance to their start; neighbours and estimates, beside what pgvector takes for the same
points by one statement, and beside a route that does nothing, served by the same server. Then, of
all clients at once, each thinking for a second between two requests: questions alone; then
questions with uploads, which are embedded meanwhile (by timm's smallest network). Any answer but a
success, 429 or 503 with Retry-After is an error. Memory is that of each process, every few seconds;
its slope is of the second half of a phase, once caches are filled. Clients, servers and stores
share the machine. The last line is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import httpx
import numpy as np
import psutil
from fastapi import FastAPI
from sqlalchemy import create_engine, text

from app.api.jobs import stop_streams
from app.server import Server, listening
from benchmarks.faults.clients import upload
from benchmarks.faults.house import House, house
from tests.engines import SERVERS
from tests.images import labelled_zip

ALONE = 40  # requests of one client
IDLE_JOBS = 20
THINKS_SECONDS = 1.0
MEMORY_SECONDS = 5.0
_PATIENCE_SECONDS = 120.0
_SETS = 50

Result = TypeVar("Result")

QUESTIONS = {"neighbours": 0.55, "estimates": 0.25, "task": 0.20}
WITH_UPLOADS = {"neighbours": 0.50, "estimates": 0.22, "task": 0.18, "upload": 0.10}


@dataclass
class Load:
    """What all clients met in a phase."""

    milliseconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    pushed_back: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)

    def told(self) -> dict[str, Any]:
        return {
            "routes": {
                route: {"answers": len(taken), **_percentiles(taken)}
                for route, taken in sorted(self.milliseconds.items())
            },
            "pushed_back": dict(self.pushed_back),
            "errors": dict(self.errors),
        }


class Memory(threading.Thread):
    """Of every process of the service, in MiB over minutes."""

    def __init__(self, here: House) -> None:
        super().__init__(name="memory", daemon=True)
        self._processes = {
            name: psutil.Process(each.process.pid)
            for name, each in here.processes.items()
            if each.process is not None
        }
        self._over = threading.Event()
        self._seen: dict[str, list[tuple[float, float]]] = defaultdict(list)

    def run(self) -> None:
        while not self._over.wait(MEMORY_SECONDS):
            for name, process in self._processes.items():
                with contextlib.suppress(psutil.NoSuchProcess):
                    mib = process.memory_info().rss / 2**20
                    self._seen[name].append((time.monotonic() / 60, mib))

    def told(self) -> dict[str, dict[str, float]]:
        self._over.set()
        self.join()
        return {name: _memory(np.array(seen)) for name, seen in self._seen.items() if seen}


def _memory(seen: np.ndarray[Any, Any]) -> dict[str, float]:
    later = seen[len(seen) // 2 :]
    slope = float(np.polyfit(later[:, 0], later[:, 1], 1)[0]) if len(later) > 2 else 0.0
    return {
        "mib_at_first": round(float(seen[0, 1]), 1),
        "mib_at_last": round(float(seen[-1, 1]), 1),
        "mib_a_minute": round(slope, 2),
    }


def apart(work: Callable[..., Coroutine[Any, Any, Result]], *asked: Any) -> Result:
    """In a process of its own: this one serves S3 to the service, and clients that wait for its
    interpreter would take that for the service's."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as clients:
        return clients.submit(_run, work, *asked).result()


def _run(work: Callable[..., Coroutine[Any, Any, Result]], *asked: Any) -> Result:
    return asyncio.run(work(*asked))


async def press(
    urls: Sequence[str],
    tasks: Sequence[str],
    mix: Mapping[str, float],
    clients: int,
    seconds: float,
) -> Load:
    load, until = Load(), time.monotonic() + seconds
    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with httpx.AsyncClient(timeout=_PATIENCE_SECONDS, limits=limits) as http:
        await asyncio.gather(
            *(
                _client(http, urls[number % len(urls)], tasks, mix, load, until, number)
                for number in range(clients)
            )
        )
    return load


async def _client(
    http: httpx.AsyncClient,
    url: str,
    tasks: Sequence[str],
    mix: Mapping[str, float],
    load: Load,
    until: float,
    seed: int,
) -> None:
    chance = random.Random(seed)
    while time.monotonic() < until:
        await asyncio.sleep(chance.expovariate(1 / THINKS_SECONDS))
        (route,) = chance.choices(list(mix), list(mix.values()))
        method, path, request = _request(route, chance, tasks)
        began = time.monotonic()
        try:
            answer = await http.request(method, f"{url}/v1{path}", **request)
        except httpx.HTTPError as error:
            load.errors[f"{route}: {error!r} of {_root(error)!r}"] += 1
            continue
        if answer.is_success:
            load.milliseconds[route].append((time.monotonic() - began) * 1e3)
        elif answer.status_code in (429, 503) and "Retry-After" in answer.headers:
            load.pushed_back[route] += 1
            await asyncio.sleep(float(answer.headers["Retry-After"]))
        else:
            load.errors[f"{route}: {answer.status_code} {answer.text[:200]}"] += 1


def _root(error: BaseException) -> BaseException:
    inner = error.__cause__ or error.__context__
    return error if inner is None else _root(inner)


def _request(
    route: str, chance: random.Random, tasks: Sequence[str]
) -> tuple[str, str, Mapping[str, Any]]:
    if route == "upload":
        archive = labelled_zip(2, 6, seed=chance.randrange(_SETS), size=32)
        return "POST", "/tasks", upload(archive, f"{chance.getrandbits(128):032x}", name="load")
    here = f"/tasks/{chance.choice(tasks)}"
    return "GET", here if route == "task" else f"{here}/{route}", {}


def idle_jobs(here: House, count: int) -> list[float]:
    """Milliseconds from a job's acceptance to its start, by the rows, each the only one."""
    waited = []
    with httpx.Client(base_url=f"{here.urls[0]}/v1", timeout=_PATIENCE_SECONDS) as http:
        for number in range(count):
            archive = labelled_zip(2, 6, seed=1_000 + number, size=32)
            accepted = http.post("/tasks", **upload(archive, f"idle-{number}", name="idle"))
            job_id = accepted.raise_for_status().json()["job_id"]
            while not (job := http.get(f"/jobs/{job_id}").json())["finished_at"]:
                time.sleep(0.25)
            started, created = (_seconds(job[name]) for name in ("started_at", "created_at"))
            waited.append((started - created) * 1e3)
            time.sleep(random.Random(number).uniform(0, 0.3))  # not in step with those who poll
    return waited


def _seconds(moment: str) -> float:
    return float(np.datetime64(moment.rstrip("Z"), "us").astype(np.int64)) / 1e6


def one_at_a_time(url: str, path: str, count: int) -> list[float]:
    taken = []
    with httpx.Client(timeout=_PATIENCE_SECONDS) as http:
        for _ in range(count + 3):
            began = time.monotonic()
            http.get(f"{url}{path}").raise_for_status()
            taken.append((time.monotonic() - began) * 1e3)
    return taken[3:]


def statement(here: House, count: int) -> list[float]:
    """The nearest ten by pgvector, of the points that a search for neighbours goes through."""
    engine = create_engine(here.settings.store_url)
    column = text(
        "SELECT table_name, column_name FROM information_schema.columns WHERE udt_name = 'halfvec'"
        " AND table_name LIKE 'search_points_%' ORDER BY table_name, ordinal_position LIMIT 1"
    )
    taken = []
    with engine.connect() as connection:
        table, points = connection.execute(column).one()
        one = f"(SELECT {points} FROM {table} ORDER BY embedding_seq LIMIT 1 OFFSET :n)"
        query = text(f"SELECT embedding_seq FROM {table} ORDER BY {points} <-> {one} LIMIT 10")
        for number in range(count + 3):
            began = time.monotonic()
            connection.execute(query, {"n": number % 50}).all()
            taken.append((time.monotonic() - began) * 1e3)
    engine.dispose()
    return taken[3:]


@contextlib.contextmanager
def empty_route() -> Iterator[str]:
    """A FastAPI that answers {} at /, behind the server that the service has."""
    context = get_context("spawn")
    ready = context.Queue()
    process = context.Process(target=_serve_empty, args=(ready,))
    process.start()
    try:
        yield f"http://127.0.0.1:{ready.get(timeout=_PATIENCE_SECONDS)}"
    finally:
        process.terminate()
        process.join()


def _serve_empty(ready: Any) -> None:
    service = FastAPI()
    service.state.stopping = threading.Event()

    @service.get("/")
    def nothing() -> dict[str, str]:
        return {}

    with listening("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        server = Server(
            service,
            grace_seconds=1,
            on_started=lambda: ready.put(port),
            on_stopping=partial(stop_streams, service),
        )
        server.run(sockets=[listener])


def measure(here: House, *, clients: int, seconds: float) -> dict[str, Any]:
    rows = httpx.get(f"{here.urls[0]}/v1/tasks?library=true&limit=200", timeout=60).json()["items"]
    tasks = [row["id"] for row in rows]
    result: dict[str, Any] = {"clients": clients, "library_tasks": len(tasks)}
    result["job_starts_after_ms"] = _percentiles(idle_jobs(here, IDLE_JOBS))
    _print("job, accepted to started", result["job_starts_after_ms"])
    alone = {
        route: one_at_a_time(here.urls[0], f"/v1/tasks/{tasks[0]}{end}", ALONE)
        for route, end in (("neighbours", "/neighbours"), ("estimates", "/estimates"), ("task", ""))
    }
    alone["pgvector, one statement"] = statement(here, ALONE)
    with empty_route() as url:
        alone["empty route"] = one_at_a_time(url, "/", ALONE)
        pressed = apart(_press_empty, url, clients, min(seconds, 30.0))
    result["alone_ms"] = {name: _percentiles(taken) for name, taken in alone.items()}
    for name, told in result["alone_ms"].items():
        _print(f"alone, {name}", told)
    result["empty_route_under_load_ms"] = _percentiles(pressed)
    _print("empty route, all clients", result["empty_route_under_load_ms"])
    for phase, mix in (("questions", QUESTIONS), ("with_embedding", WITH_UPLOADS)):
        memory = Memory(here)
        memory.start()
        load = apart(press, here.urls, tasks, mix, clients, seconds).told()
        result[phase] = {**load, "memory": memory.told()}
        for route, told in load["routes"].items():
            _print(f"{phase}, {route} ({told['answers']:,} answers)", told)
        for name, told in result[phase]["memory"].items():
            print(f"    {name}: {told}", flush=True)
        print(f"    pushed back {load['pushed_back']}, errors {load['errors']}", flush=True)
    return result


async def _press_empty(url: str, clients: int, seconds: float) -> list[float]:
    taken: list[float] = []
    until = time.monotonic() + seconds
    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)

    async def one(http: httpx.AsyncClient, seed: int) -> None:
        chance = random.Random(seed)
        while time.monotonic() < until:
            await asyncio.sleep(chance.expovariate(1 / THINKS_SECONDS))
            began = time.monotonic()
            (await http.get(url)).raise_for_status()
            taken.append((time.monotonic() - began) * 1e3)

    async with httpx.AsyncClient(timeout=_PATIENCE_SECONDS, limits=limits) as http:
        await asyncio.gather(*(one(http, seed) for seed in range(clients)))
    return taken


def _percentiles(milliseconds: Sequence[float]) -> dict[str, float]:
    if not milliseconds:
        return {}
    middle, late = np.percentile(milliseconds, (50, 99))
    return {"p50": round(float(middle), 1), "p99": round(float(late), 1)}


def _print(what: str, told: Mapping[str, float]) -> None:
    print(f"{what:44} p50 {told['p50']:>9,.1f} ms   p99 {told['p99']:>9,.1f} ms", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=3.0, help="of each phase")
    asked = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # in order: what was started is stopped
    with tempfile.TemporaryDirectory(prefix="task2vec-load-") as directory:
        cards = ("candidates", "devices", "outcomes", "probes", "recipes", "reference")
        with house(SERVERS, Path(directory), by_fork=False, cards=cards) as here:
            result = measure(here, clients=asked.clients, seconds=asked.minutes * 60)
    print(json.dumps(result))
    errors = [result[phase]["errors"] for phase in ("questions", "with_embedding")]
    return 1 if any(errors) else 0


if __name__ == "__main__":
    sys.exit(main())
