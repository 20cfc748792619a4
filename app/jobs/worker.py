"""The worker process: one probe, one durable engine, one embedding and one fine-tuning at a time.

It leaves in order on SIGTERM or SIGINT (the job at hand goes back to the queue), and at once when
the pipe from its parent closes. Whatever kills it otherwise, its successor resumes its work.
"""

from __future__ import annotations

import functools
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from sqlalchemy import select

from app import __version__, tracing
from app.errors import Task2VecError
from app.files import whole
from app.jobs import alive, weights
from app.jobs.adopt import adopt_runs
from app.jobs.housekeeping import housekeep, reconcile, sweep_embeddings
from app.jobs.lock import only_worker
from app.jobs.supervisor import EXIT_WORKER_RUNNING
from app.settings import Settings, shared_directory
from app.store import estimators, jobs, spaces, turns, workers
from app.store.blobs import BlobStore, open_blobs
from app.store.indexes import open_indexes
from app.store.session import Database
from app.store.spaces import REINDEX
from app.store.tables import Outbox, Worker, new_id, now
from app.telemetry import configure_logging, log_event

if TYPE_CHECKING:
    from app.jobs.engine import Engine

EMBEDDED = "embedded"
HEARTBEAT_SECONDS = 2.0
LEASE_SECONDS = 10.0  # so long may a worker be silent before others take its jobs
RECONCILE_SECONDS = 60.0  # so long does a job wait that is to be tried again
HOUSEKEEPING_SECONDS = 3600.0
CALLBACK_SECONDS = 1.0
PAUSE_AFTER_ERROR_SECONDS = 1.0


def run_worker(settings: Settings, device: str, parent_pipe: bool) -> None:
    """Works until it is told to stop; must be called in the process's main thread.

    Conflict where another worker holds this data directory; errors of the probe and its weights.
    """
    _on_signal(lambda: os._exit(0))  # nothing is in hand yet, and the imports below take seconds
    if parent_pipe:
        threading.Thread(target=_leave_with_parent, name="parent", daemon=True).start()

    settings.data_dir.mkdir(parents=True, exist_ok=True)
    database = Database(settings.store_url)
    with only_worker(settings.data_dir):
        try:
            _work(settings, device, database)
        finally:
            database.dispose()


def _work(settings: Settings, device: str, database: Database) -> None:
    database.migrate(shared_directory("migrations"))
    worker_id = own_id(settings)
    with database.session() as session:
        workers.retire(session, worker_id)  # a killed predecessor: nobody is ready yet

    blobs = open_blobs(settings.blobs_at)
    adopt_runs(settings, database, blobs)

    # Torch takes seconds to import: not before the lock is held and signals are heard.
    import torch

    from app.catalogue import ProbeCard, get_card
    from app.embedding.layers import Layer
    from app.embedding.probe import Probe, choose_device, choose_dtype, load_probe
    from app.jobs.bench import Workbench
    from app.jobs.engine import DbosEngine
    from app.jobs.run import run_job

    if settings.threads:
        torch.set_num_threads(settings.threads)

    @functools.lru_cache(maxsize=2)
    def probe_named(name: str) -> Probe:
        card = get_card(settings.models_dir, ProbeCard, name)
        probe = load_probe(card, device, choose_dtype(settings.precision, choose_device(device)))
        if not probe.card.is_pinned:
            log_event(
                "probe.unpinned",
                level=logging.WARNING,
                probe=name,
                digest=probe.digest,
                remedy="Write this `digest` into the probe's card: other weights are refused then.",
            )
        with database.session() as session:
            told = [Layer(layer.name, layer.start, layer.stop) for layer in probe.layers]
            spaces.describe(session, probe.space_id, told)
        return probe

    probe = probe_named(settings.probe)
    probe.warm_up()
    stopping = threading.Event()
    _on_signal(stopping.set)
    bench = Workbench(settings, database, blobs, probe_named, stopping.is_set, probe.device.type)
    at_work = _AtWork()

    def work(job_id: str) -> None:
        with at_work:
            run_job(job_id, bench)

    engine = DbosEngine(
        settings.engine_url,
        executor_id=worker_id,
        poll_interval_seconds=settings.poll_interval_seconds,
    )
    engine.start(work)
    with database.session() as session:
        workers.register(
            session,
            Worker(
                id=worker_id,
                probe=settings.probe,
                space_id=probe.space_id,
                device=str(probe.device),
                code_version=__version__,
                started_at=now(),
                heartbeat_at=now(),
            ),
        )
    heart = threading.Thread(
        target=_beat, args=(database, worker_id, stopping), name="heartbeat", daemon=True
    )
    heart.start()
    threading.Thread(
        target=weights.tell_until,
        args=(stopping, database, worker_id),
        name="weights",
        daemon=True,
    ).start()
    log_event("worker.ready", pid=os.getpid(), device=str(probe.device), space_id=probe.space_id)

    _in_background(stopping, settings, database)
    threading.Thread(
        target=_housekeep_until,
        args=(stopping, settings, database, blobs, engine),
        name="housekeeping",
        daemon=True,
    ).start()

    _dispatch_until(stopping, settings, database, engine, worker_id, at_work.one_ended)

    in_order = at_work.wait_until_none(settings.shutdown_grace_seconds)
    engine.stop()
    heart.join()
    with database.session() as session:
        workers.retire(session, worker_id)
    tracing.stop()
    log_event("worker.stopped", pid=os.getpid(), in_order=in_order)
    if not in_order:
        # The job sits in a batch that does not end, and Python would wait for its thread.
        os._exit(0)


def own_id(settings: Settings) -> str:
    """The same after every restart on a data directory: what a worker left pending, it resumes."""
    if not settings.engine_is_shared:
        return EMBEDDED
    path = settings.data_dir / "worker.id"
    if not path.exists():
        with whole(path) as scratch:
            scratch.write_text(new_id())
    return path.read_text()


def _dispatch_until(
    stopping: threading.Event,
    settings: Settings,
    database: Database,
    engine: Engine,
    worker_id: str,
    place_free: threading.Event,
) -> None:
    reconcile_at = look_at = beat_at = time.monotonic()
    while not stopping.is_set():
        pause_seconds = settings.poll_interval_seconds
        try:
            if time.monotonic() >= beat_at:
                beat_at = time.monotonic() + HEARTBEAT_SECONDS
                alive.beat(settings.data_dir)
            dispatch(database, engine, settings.max_tenant_jobs)
            if time.monotonic() >= reconcile_at:
                reconcile_at = time.monotonic() + RECONCILE_SECONDS
                reconcile(database, engine)
                sweep_embeddings(database)
            if settings.engine_is_shared and time.monotonic() >= look_at:
                look_at = time.monotonic() + HEARTBEAT_SECONDS
                take_over(database, engine, worker_id)
        except Exception:  # the database may be back at the next turn
            log_event("worker.dispatch_failed", level=logging.ERROR, exc_info=True)
            pause_seconds = PAUSE_AFTER_ERROR_SECONDS
            look_at = time.monotonic() + LEASE_SECONDS  # the others could not beat either
        if place_free.wait(pause_seconds):
            place_free.clear()


def _housekeep_until(
    stopping: threading.Event,
    settings: Settings,
    database: Database,
    blobs: BlobStore,
    engine: Engine,
) -> None:
    """Beside the dispatch of jobs, for which no backlog of files may be too long. By every worker:
    some of what goes lies on its own disk."""
    while True:
        try:
            housekeep(settings, database, blobs, engine)
        except Exception:  # what was wrong may be over at the next turn
            log_event("housekeeping.failed", level=logging.ERROR, exc_info=True)
        if stopping.wait(HOUSEKEEPING_SECONDS):
            return


def _in_background(stopping: threading.Event, settings: Settings, database: Database) -> None:
    """Maps and estimators follow tasks and outcomes at some distance, and who asked to hear of a
    job's end is called."""
    from app.jobs import atlas, callbacks, recalibrate

    indexes = open_indexes(settings.vector_index, settings.index_dir, database)
    shipped = estimators.shipped(settings.models_dir)

    def draw() -> None:
        atlas.refresh(database, indexes, threads=settings.threads or 1, stop=stopping.is_set)

    def refit() -> None:
        recalibrate.refresh(database, shipped, stop=stopping.is_set)

    def call() -> None:
        callbacks.deliver(database, settings.callback_prefixes, networks=settings.source_networks)

    for name, seconds, work in (
        ("callbacks", CALLBACK_SECONDS, call),
        ("atlas", settings.atlas_interval_seconds, draw),
        ("estimator", settings.recalibration_interval_seconds, refit),
    ):
        if seconds:
            threading.Thread(
                target=_repeat_until,
                args=(stopping, seconds, database, work, name),
                name=name,
                daemon=True,
            ).start()


def _repeat_until(
    stopping: threading.Event,
    interval_seconds: float,
    database: Database,
    work: Callable[[], object],
    name: str,
) -> None:
    """What is at work is left at the end; one worker at a time is at it."""
    while not stopping.wait(interval_seconds):
        try:
            with database.alone(name) as is_alone:
                if is_alone:
                    work()
        except Exception:  # what was wrong may be over at the next turn
            log_event(f"{name}.failed", level=logging.ERROR, exc_info=True)


def dispatch(database: Database, engine: Engine, most_of_a_tenant: int | None = None) -> None:
    """Hands the engine the jobs whose turn it is, then writes down that it did.

    In this order: after a crash in between, the engine is handed a job that it knows already.
    Where nobody waits, and nothing is unfinished, a job of the background gets its turn.
    """
    with database.session(read_only=True) as session:
        background = jobs.next_in_background(session)
        accepted = session.scalar(select(Outbox.seq).limit(1)) is not None
        places = max(1, len(workers.alive(session, LEASE_SECONDS))) if accepted else 0
        due = accepted and turns.is_one_due(session, places, most_of_a_tenant)
    if background is not None:
        engine.enqueue(background, REINDEX)
    if not due:
        return  # as nearly always: the write lock is not worth asking for
    with database.session() as session:
        for job in turns.take(session, places, most_of_a_tenant):
            engine.enqueue(job.id, job.kind)
            tracing.waited("outbox", job.traceparent, job.created_at)


def take_over(database: Database, engine: Engine, own_id: str) -> None:
    """Has the jobs of dead workers done by those that are alive.

    In this order: after a crash in between, another one does the same again.
    """
    with database.session(read_only=True) as session:
        dead = [each for each in workers.silent(session, LEASE_SECONDS) if each != own_id]
    if not dead:
        return
    engine.take_over(dead)
    with database.session() as session:
        for worker_id in dead:
            workers.remove_silent(session, worker_id, LEASE_SECONDS)
    log_event("worker.taken_over", level=logging.WARNING, workers=dead)


class _AtWork:
    """How many jobs are: one of each of the engine's queues at most."""

    def __init__(self) -> None:
        self.one_ended = threading.Event()
        self._count = 0
        self._changed = threading.Condition()

    def __enter__(self) -> None:
        with self._changed:
            self._count += 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._count -= 1
            self._changed.notify_all()
        self.one_ended.set()

    def wait_until_none(self, seconds: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self._count == 0, seconds)


def _on_signal(act: Callable[[], None]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: act())


def _beat(database: Database, worker_id: str, stopping: threading.Event) -> None:
    while not stopping.wait(HEARTBEAT_SECONDS):
        try:
            with database.session() as session:
                counts = workers.beat(session, worker_id)
            if not counts:
                # Others have its jobs, and tokens keep it from writing to them: to begin anew.
                log_event("worker.taken_for_dead", level=logging.ERROR)
                stopping.set()
        except Exception:
            log_event("worker.heartbeat_failed", level=logging.WARNING, exc_info=True)


def _leave_with_parent() -> None:
    # os.read, not sys.stdin: a blocked buffered read holds a lock that the exit wants.
    while os.read(0, 1024):
        pass
    os._exit(0)


def main() -> None:
    """The child of `supervisor.WorkerSupervisor`."""
    configure_logging()
    settings = Settings()
    try:
        tracing.configure("worker")
        run_worker(settings, settings.device, parent_pipe=True)
    except Task2VecError as error:
        log_event("worker.failed", level=logging.ERROR, **error.problem())
        sys.exit(EXIT_WORKER_RUNNING if error.code == "worker-running" else 1)
    os._exit(0)  # all is closed, and Python would take seconds to tear torch down


if __name__ == "__main__":
    main()
