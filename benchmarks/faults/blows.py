"""What is done to the service while it works: each blow is struck at a random moment.

A blow returns once what it did is done, or over: the service may still be down then.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import psutil
from sqlalchemy import create_engine, select, text

from app.jobs.worker import LEASE_SECONDS
from app.store.session import Database
from app.store.tables import Job
from benchmarks.faults.house import House, Kept
from benchmarks.faults.proxy import Trouble

Blow = Callable[[House, random.Random], None]
Found = TypeVar("Found")

DRAIN_SECONDS = 10.0
"""So soon must a worker be gone that is told to stop."""
_DISK_IS_FULL_SECONDS = 4.0
_S3_TROUBLE_SECONDS = 6.0
_CLOCK_IS_WRONG_SECONDS = 4.0
_POISON_ATTEMPTS_SECONDS = 300.0


class Unkept(AssertionError):
    """A promise that a blow itself found broken."""


def kill_api(house: House, chance: random.Random) -> None:
    chance.choice(house.named("api")).signal(signal.SIGKILL)


def kill_worker(house: House, chance: random.Random) -> None:
    if house.named("worker"):
        chance.choice(house.named("worker")).signal(signal.SIGKILL)
        return
    worker = _wait_for(house.supervised_worker)
    with suppress(psutil.NoSuchProcess):
        worker.kill()


def kill_service(house: House, _: random.Random) -> None:
    """The API, whose worker finds its pipe closed and goes too."""
    house.processes["service"].signal(signal.SIGKILL)


def cut_connection(house: House, chance: random.Random) -> None:
    with suppress(ProcessLookupError):
        _terminate_backend(house, _backend(house, chance))


def kill_backend(house: House, chance: random.Random) -> None:
    """The server ends all others too, and recovers."""
    with suppress(ProcessLookupError):
        os.kill(_backend(house, chance), signal.SIGKILL)


def restart_database(house: House, _: random.Random) -> None:
    """In order: whoever is connected is told."""
    _stop_postgresql(house, signal.SIGINT)


def crash_database(house: House, _: random.Random) -> None:
    """At once, without a checkpoint: the next start recovers from the log."""
    _stop_postgresql(house, signal.SIGQUIT)


def trouble_s3(house: House, chance: random.Random) -> None:
    assert house.proxy is not None
    kinds: list[Trouble] = ["slow", "errors", "torn", "gone"]
    house.proxy.trouble = chance.choice(kinds)
    time.sleep(_S3_TROUBLE_SECONDS)
    house.proxy.trouble = "none"


def fill_disk(house: House, _: random.Random) -> None:
    """Until nothing more can be written; only where the data lie on a disk of their own."""
    ballast = house.settings.data_dir / "ballast"
    try:
        with ballast.open("wb", buffering=0) as file:
            for size in (2**20, 2**12, 1):
                with suppress(OSError):
                    while file.write(bytes(size)) == size:
                        pass
        time.sleep(_DISK_IS_FULL_SECONDS)
    finally:
        ballast.unlink(missing_ok=True)


def turn_clock(house: House, chance: random.Random) -> None:
    minutes = chance.choice((-1440, -60, -1, 1, 60, 1440))
    house.clock.write_text(f"{minutes * 60:+d}\n")
    time.sleep(_CLOCK_IS_WRONG_SECONDS)
    if chance.random() < 0.5:
        house.clock.write_text("+0\n")


def freeze_worker(house: House, chance: random.Random) -> None:
    """For longer than its lease: it comes back when others have its jobs."""
    worker = chance.choice(house.named("worker"))
    worker.signal(signal.SIGSTOP)
    time.sleep(LEASE_SECONDS * chance.uniform(1.3, 1.8))
    worker.signal(signal.SIGCONT)


def stop_worker(house: House, chance: random.Random) -> None:
    """In order, as a deployment does."""
    _let_go(chance.choice(house.named("worker")))


def deploy(house: House, chance: random.Random) -> None:
    """Another version of the code in one worker or API, beside what runs."""
    kept = chance.choice(list(house.processes.values()))
    kept.code_version = "" if kept.code_version else "0.0.0+next"
    _let_go(kept)


def poison(house: House, _: random.Random) -> None:
    """Some job kills every worker that begins it."""
    database = Database(house.settings.store_url)
    try:
        job_id = _wait_for(lambda: _one_running(database))
        give_up_at = time.monotonic() + _POISON_ATTEMPTS_SECONDS
        attempts = 0
        while time.monotonic() < give_up_at:
            job = _read(database, job_id)
            if job is None or job.state == "succeeded":
                return  # it was too fast to be anybody's death
            if job.finished_at is not None:
                code = str((job.problem or {}).get("type", ""))
                if job.state != "failed" or not code.endswith("job-kills-workers"):
                    raise Unkept(f"the poisonous job {job_id} is {job.state}: {code}")
                return
            if job.state == "running" and job.attempts > attempts:
                attempts = job.attempts
                for worker in house.named("worker"):
                    worker.signal(signal.SIGKILL)
            time.sleep(0.01)
        raise Unkept(f"the poisonous job {job_id} never ended")
    finally:
        database.dispose()


def _let_go(kept: Kept) -> None:
    process, began = kept.process, time.monotonic()
    if process is None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        code = process.wait(3 * DRAIN_SECONDS)
    except subprocess.TimeoutExpired:
        raise Unkept(f"{kept.name} did not stop") from None
    seconds = time.monotonic() - began
    # Before it says anything it has nothing in hand, and the signal may find Python still starting.
    was_starting = code == -signal.SIGTERM and not kept.has_spoken
    if (code and not was_starting) or seconds > DRAIN_SECONDS + 1:
        raise Unkept(f"{kept.name} took {seconds:.1f} s to stop, and ended with {code}")


def _backend(house: House, chance: random.Random) -> int:
    """Process of a connection of the service."""
    query = text(
        "SELECT pid FROM pg_stat_activity"
        " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() ORDER BY pid"
    )
    pids = _ask(house, query)
    if not pids:
        raise ProcessLookupError
    return chance.choice(pids)


def _terminate_backend(house: House, pid: int) -> None:
    _ask(house, text(f"SELECT pg_terminate_backend({pid})::int"))


def _ask(house: House, query: object) -> list[int]:
    engine = create_engine(house.settings.store_url)
    try:
        with engine.connect() as connection:
            return list(connection.scalars(query))  # type: ignore[call-overload]
    finally:
        engine.dispose()


def _stop_postgresql(house: House, number: signal.Signals) -> None:
    server = house.postgresql
    assert server is not None
    postmaster = psutil.Process(server.get_pid())
    postmaster.send_signal(number)
    with suppress(psutil.TimeoutExpired):
        postmaster.wait(30)
    server.ensure_postgres_running()


def _one_running(database: Database) -> str | None:
    with database.session(read_only=True) as session:
        return session.scalar(select(Job.id).where(Job.state == "running").limit(1))


def _read(database: Database, job_id: str) -> Job | None:
    with database.session(read_only=True) as session:
        return session.scalar(select(Job).where(Job.id == job_id))


def _wait_for(look: Callable[[], Found | None]) -> Found:
    give_up_at = time.monotonic() + 60
    while (found := look()) is None:
        if time.monotonic() > give_up_at:
            raise Unkept("nothing to strike at for a minute")
        time.sleep(0.05)
    return found
