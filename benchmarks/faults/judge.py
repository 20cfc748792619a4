"""What must be true once all is quiet again: each sentence that is not becomes a finding."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing

import httpx
from sqlalchemy import create_engine, func, inspect, select, text

from app.jobs import housekeeping
from app.store import archives
from app.store.blobs import ANY_AGE, open_blobs
from app.store.session import Database
from app.store.tables import Archive, Embedding, Job, Outbox, Task
from benchmarks.faults.clients import (
    ENDED,
    Account,
    Caller,
    Told,
    digest_of_vector,
    neighbours_of,
    upload,
)
from benchmarks.faults.house import House

SETTLE_SECONDS = 600.0
_CLOSE = 1e-5  # relative: distances of the same numbers by another order of sums


def settle(house: House, account: Account) -> Iterator[str]:
    """Waits until every job has ended; those that do not are stuck."""
    house.wait_until_ready()
    give_up_at = time.monotonic() + SETTLE_SECONDS
    with closing(Caller(house.urls, account)) as call:
        for told in account.tasks:
            for job_id, state in list(told.jobs.items()):
                while state is None and time.monotonic() < give_up_at:
                    answer = call("GET", f"/jobs/{job_id}")
                    if answer.status_code == 404 and told.deleted:
                        state = "deleted"
                    elif answer.status_code != 200:
                        yield f"job {job_id} of task {told.id}: {answer.status_code}"
                        state = "lost"
                    elif answer.json()["state"] in ENDED:
                        state = answer.json()["state"]
                    else:
                        time.sleep(0.2)
                told.jobs[job_id] = state
                if state is None:
                    yield f"job {job_id} of task {told.id} is stuck"


def judge(house: House, account: Account, *, poisoned: bool) -> Iterator[str]:
    """The store first: a key that is repeated brings its archive along once more."""
    yield from account.broken
    yield from _of_store(house, account)
    yield from _of_check(house)
    yield from _of_logs(house)
    with closing(Caller(house.urls, account)) as call:
        embedded = {told.id: told for told in account.tasks if told.vector and not told.deleted}
        for told in account.tasks:
            yield from _of_task(call, told, poisoned=poisoned)
            yield from _of_neighbours(call, told, embedded)
        yield from _of_events(house, account)


def _of_task(call: Caller, told: Told, *, poisoned: bool) -> Iterator[str]:
    again = call("POST", "/tasks", **upload(told.archive, told.key, name=told.name))
    if again.status_code != 202 or again.json() != {"id": told.id, "job_id": told.job_id}:
        yield f"task {told.id}: its key is answered by {again.status_code} {again.text}"
    answer = call("GET", f"/tasks/{told.id}")
    if told.deleted:
        if answer.status_code != 404:
            yield f"task {told.id} was deleted, and is there: {answer.text}"
        return
    if answer.status_code != 200:
        yield f"task {told.id} is lost: {answer.status_code} {answer.text}"
        return
    for job_id, state in told.jobs.items():
        job = call("GET", f"/jobs/{job_id}").json()
        if job["state"] != state:
            yield f"job {job_id} was told {state} and is {job['state']}"
        allowed = {"succeeded" if told.expected == "succeeded" else "refused"}
        if poisoned:
            allowed.add("failed")
        if state not in allowed:
            yield f"job {job_id} of task {told.id} ended {state}: {job['problem']}"
    if told.vector and digest_of_vector(call, told.id) != told.vector:
        yield f"task {told.id} has another vector than was told"


def _of_neighbours(call: Caller, told: Told, embedded: dict[str, Told]) -> Iterator[str]:
    """Distances told are those of now, in the same order, of all that are what they were then."""
    if told.deleted or not told.neighbours:
        return
    now = dict(neighbours_of(call, told.id, k=1000))
    last = -math.inf
    for other, distance in told.neighbours:
        if other not in embedded or embedded[other].grown:
            continue  # gone since, or another than it was
        if other not in now:
            yield f"task {told.id} has {other} as its neighbour no more"
        elif not math.isclose(now[other], distance, rel_tol=_CLOSE, abs_tol=1e-7):
            yield f"task {told.id}: {other} was {distance} away and is {now[other]}"
        elif now[other] < last - max(abs(last) * _CLOSE, 1e-7):
            yield f"task {told.id}: the order of its neighbours is another"
        last = now.get(other, last)


def _of_events(house: House, account: Account) -> Iterator[str]:
    """Whoever listens to a job that has ended hears of its end, once."""
    for told in account.tasks[:20]:
        if told.deleted:
            continue
        url = f"{house.urls[0]}/v1/jobs/{told.job_id}/events"
        events = [
            json.loads(line.removeprefix("data:"))["state"]
            for line in httpx.get(url, timeout=30).text.splitlines()
            if line.startswith("data:")
        ]
        if events != [told.jobs[told.job_id]]:
            yield f"job {told.job_id} tells of its end as {events}"


def _of_logs(house: House) -> Iterator[str]:
    """Workers tell of each job's end once."""
    ends: Counter[str] = Counter()
    for path in house.directory.glob("*.log"):
        for line in path.read_text(errors="replace").splitlines():
            if '"event": "task.' in line and '"job_id"' in line:
                with_end = json.loads(line)
                if with_end["event"].removeprefix("task.") in ENDED:
                    ends[with_end["job_id"]] += 1
            elif '"event": "request.failed"' in line:
                yield f"{path.name}: {line[:2000]}"
    yield from (f"job {job_id} ended {n} times" for job_id, n in ends.items() if n > 1)


def _of_store(house: House, account: Account) -> Iterator[str]:
    database, blobs = Database(house.settings.store_url), open_blobs(house.settings.blobs_at)
    try:
        housekeeping.sweep_embeddings(database)
        with database.session(read_only=True) as session:
            there = set(session.scalars(select(Task.id)))
            expected = {told.id for told in account.tasks if not told.deleted}
            yield from (f"task {task_id} is there that nobody sent" for task_id in there - expected)
            yield from (f"task {task_id} is not there" for task_id in expected - there)
            unfinished = session.scalars(select(Job.id).where(Job.state.not_in(ENDED))).all()
            yield from (f"job {job_id} is unfinished" for job_id in unfinished)
            if waiting := session.scalar(select(func.count()).select_from(Outbox)):
                yield f"{waiting} jobs wait in the outbox"
            used = set(session.scalars(select(Task.embedding_seq)))
            for seq in session.scalars(select(Embedding.seq)):
                if seq not in used:
                    yield f"embedding {seq} is nobody's"
            orphans = archives.orphans(session, blobs, ANY_AGE)
        # As once a day has passed: no upload lasts longer.
        for sha256 in orphans:
            with database.session() as session:
                archives.delete_unneeded(session, blobs, [sha256])
        blobs.sweep(ANY_AGE)
        with database.session(read_only=True) as session:
            needed = set(session.scalars(select(Archive.sha256)))
        stored = set(blobs.stored())
        yield from (f"blob {sha256} is nobody's" for sha256 in stored - needed)
        yield from (f"blob {sha256} is missing" for sha256 in needed - stored)
    finally:
        database.dispose()
    yield from _of_engine(house)


def _of_engine(house: House) -> Iterator[str]:
    """Nothing of the durable engine's is left to be done."""
    engine = create_engine(house.settings.engine_url)
    try:
        with engine.connect() as connection:
            schema = "dbos" if inspect(connection).has_schema("dbos") else None
            name = "dbos.workflow_status" if schema else "workflow_status"
            query = f"SELECT workflow_uuid FROM {name} WHERE status IN ('ENQUEUED', 'PENDING')"
            for left in connection.scalars(text(query)):
                yield f"the engine still has {left}"
    finally:
        engine.dispose()


def _of_check(house: House) -> Iterator[str]:
    told = subprocess.run(
        [sys.executable, "-m", "app.cli", "check", "--deep", "--json"],
        env=house.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if told.returncode:
        yield f"task2vec check --deep: {told.stdout}{told.stderr}"
