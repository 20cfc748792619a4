"""`python -m tests.jobs.held worker|serve ...`: as in production, but jobs wait half way.

While the file that TEST_HOLD names is there, a job that has told the first of its last phase goes
no further, nor a run after a few steps: whoever wants to interrupt it cannot come too late.
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


def main() -> None:
    if sys.argv[1] == "worker":
        from app.jobs import worker

        Progress.__call__ = _tell_and_wait  # type: ignore[assignment, method-assign]
        worker.main()
    else:
        supervisor.WorkerSupervisor = functools.partial(  # type: ignore[assignment, misc]
            supervisor.WorkerSupervisor, command=WORKER_COMMAND
        )
        cli.app()


if __name__ == "__main__":
    main()
