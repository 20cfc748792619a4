"""`python -m tests.jobs.held worker|serve ...`: as in production, but jobs wait half way.

While the file that TEST_HOLD names is there, a job that has told the first of its last phase goes
no further, nor a run after a few steps: whoever wants to interrupt it cannot come too late. While
the one that TEST_COLD names is there, a probe does not become warm; the worker writes there that it
has come so far.
"""

from __future__ import annotations

import functools
import os
import sys
import time
from pathlib import Path

from app import cli
from app.jobs import supervisor
from app.jobs.progress import TRAINING, Progress

HOLD = "TEST_HOLD"
COLD = "TEST_COLD"
WARMING = "warming"
HELD_STEP = 8
WORKER_COMMAND = (sys.executable, "-m", "tests.jobs.held", "worker")
SERVE_COMMAND = (sys.executable, "-m", "tests.jobs.held", "serve")

_tell = Progress.__call__


def _tell_and_wait(progress: Progress, phase: str, done: int, total: int) -> None:
    _tell(progress, phase, done, total)
    half_way = phase == "fisher" or (phase, done) == (TRAINING, HELD_STEP)
    while half_way and Path(os.environ[HOLD]).exists():
        time.sleep(0.01)
        _tell(progress, phase, done, total)  # hears of a stop meanwhile


def _stay_cold() -> None:
    from app.embedding.probe import Probe

    warm_up, cold = Probe.warm_up, Path(os.environ[COLD])

    def wait_and_warm_up(probe: Probe) -> None:
        cold.write_text(WARMING)
        while cold.exists():
            time.sleep(0.01)
        warm_up(probe)

    Probe.warm_up = wait_and_warm_up  # type: ignore[method-assign]


def main() -> None:
    if sys.argv[1] == "worker":
        from app.jobs import worker

        if COLD in os.environ:
            _stay_cold()
        Progress.__call__ = _tell_and_wait  # type: ignore[assignment, method-assign]
        worker.main()
    else:
        supervisor.WorkerSupervisor = functools.partial(  # type: ignore[assignment, misc]
            supervisor.WorkerSupervisor, command=WORKER_COMMAND
        )
        cli.app()


if __name__ == "__main__":
    main()
