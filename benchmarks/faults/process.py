"""Starts the command line in a process of its own, by a fork of one that has imported everything.

To import torch takes ten seconds of a core, and processes here live no longer than that. A fork is
killed like any other process, and what it runs is the same from its first line on.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

_FORKS = multiprocessing.get_context("forkserver")
_IMPORTED = (
    "app.api.main",
    "app.cli",
    "app.embedding.probe",
    "app.jobs.atlas",
    "app.jobs.bench",
    "app.jobs.engine",
    "app.jobs.run",
    "app.jobs.worker",
    "app.server",
    "app.store.s3_blobs",
    "benchmarks.faults.judge",  # a fork imports what the program at hand is made of, too
    "psycopg",
    "tests.probes",
)
_FORKS.set_forkserver_preload(list(_IMPORTED))


class Process(Protocol):
    """As much of a `subprocess.Popen` as is needed here."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None: ...

    def wait(self, timeout: float) -> int: ...

    def send_signal(self, sig: int) -> None: ...


class Forked:
    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self._process = _FORKS.Process(target=_run, args=(arguments, dict(environment), log))
        self._process.start()
        self.pid = self._process.pid or 0

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float) -> int:
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
        return code

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, sig)


def spawned(
    arguments: Sequence[str], environment: Mapping[str, str], log: Path, code_version: str = ""
) -> Process:
    """From its very beginning: for what must be there before the first import."""
    said = f"import app; app.__version__ = {code_version!r}; " if code_version else ""
    program = f"{said}from app.cli import app; app()"
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-c", program, *arguments],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
        )


def in_fork(work: Callable[..., None], *given: object) -> None:
    """For what would have to import torch here."""
    process = _FORKS.Process(target=work, args=given)
    process.start()
    process.join()
    if process.exitcode:
        raise RuntimeError(f"{work.__name__} ended with {process.exitcode}")


def _run(arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
    os.environ.clear()
    os.environ.update(environment)
    with log.open("ab") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    signal.signal(signal.SIGINT, signal.default_int_handler)

    from app.cli import app

    sys.argv = ["task2vec", *arguments]
    app()
