"""The worker as a supervised child process: a crash in native code never takes the API down."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence

from app.settings import Settings
from app.telemetry import log_event

WORKER_COMMAND = (sys.executable, "-m", "app.jobs.worker")
EXIT_WORKER_RUNNING = 3
"""The worker's exit code where another one holds the data directory: no restart changes that."""

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
HEALTHY_SECONDS = 60.0
STOP_MARGIN_SECONDS = 5.0  # for what a worker does after its grace: closing the engine, leaving


class WorkerSupervisor:
    """Keeps one worker alive from `start` to `stop`, unless another has its data directory.

    The child holds the other end of a pipe: when this process dies, however it dies, the pipe
    closes and the child leaves.
    """

    def __init__(
        self,
        settings: Settings,
        device: str | None = None,
        *,
        command: Sequence[str] = WORKER_COMMAND,
    ) -> None:
        self._settings = settings.model_copy(update={"device": device or settings.device})
        self._command = command
        self._stopping = threading.Event()
        self._spawning = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._keep_alive, name="supervisor", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Asks the worker to hand back its job and leave; kills it when it does not."""
        with self._spawning:
            self._stopping.set()
            if self._process is not None:
                self._process.terminate()
        self._thread.join(self._settings.shutdown_grace_seconds + STOP_MARGIN_SECONDS)
        if self._thread.is_alive() and self._process is not None:
            log_event("worker.killed", level=logging.WARNING, pid=self._process.pid)
            self._process.kill()
            self._thread.join()

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def _keep_alive(self) -> None:
        crashes = 0
        while not self._stopping.is_set():
            started = time.monotonic()
            exit_code = self._run_once()
            if self._stopping.is_set():
                return
            if exit_code == EXIT_WORKER_RUNNING:
                log_event(
                    "worker.given_up",
                    level=logging.ERROR,
                    detail=f"Another worker holds {self._settings.data_dir}.",
                    remedy="It does this service's jobs too. To have this service run its own, "
                    "stop the other one, or set another TASK2VEC_DATA_DIR, and start it again.",
                )
                return
            lived_seconds = time.monotonic() - started
            crashes = 0 if lived_seconds >= HEALTHY_SECONDS else crashes + 1
            pause_seconds = pause_after(crashes)
            log_event(
                "worker.exited",
                level=logging.WARNING,
                exit_code=exit_code,
                lived_seconds=round(lived_seconds, 3),
                restart_in_seconds=pause_seconds,
            )
            self._stopping.wait(pause_seconds)

    def _run_once(self) -> int | None:
        """One worker's life; None where it was not to be born."""
        try:
            process = self._spawn()
        except OSError:  # no memory for another process, say: perhaps there is some later
            log_event("worker.not_started", level=logging.ERROR, exc_info=True)
            return None
        if process is None:
            return None
        with process:
            return process.wait()

    def _spawn(self) -> subprocess.Popen[bytes] | None:
        with self._spawning:
            if self._stopping.is_set():
                return None
            # Its own session: Ctrl-C reaches only the parent, which then stops the child in order.
            self._process = subprocess.Popen(  # noqa: S603
                self._command,
                stdin=subprocess.PIPE,
                env=child_environment(self._settings, os.environ),
                start_new_session=True,
            )
            return self._process


def pause_after(crashes: int) -> float:
    """Seconds to wait before the next start: doubling, from the first crash on."""
    return min(FIRST_PAUSE_SECONDS * 2.0 ** max(crashes - 1, 0), LONGEST_PAUSE_SECONDS)


def child_environment(settings: Settings, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment in which `Settings()` reads these very settings."""
    values = settings.model_dump(mode="json")
    return dict(environment) | {
        f"TASK2VEC_{name.upper()}": value if isinstance(value, str) else json.dumps(value)
        for name, value in values.items()
    }
