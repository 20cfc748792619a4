"""A data directory has one worker at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from app.errors import Conflict

PATIENCE_SECONDS = 30.0
"""A predecessor that was killed with its service needs a moment to go."""


@contextmanager
def only_worker(data_dir: Path) -> Iterator[None]:
    """Two processes under one executor id would run the same jobs twice.

    Raises Conflict where another one stays.
    """
    lock = _lock(data_dir)
    try:
        lock.acquire(timeout=PATIENCE_SECONDS)
    except Timeout:
        raise Conflict(
            "worker-running",
            f"Another worker holds {lock.lock_file}.",
            "Stop it, or give this one a TASK2VEC_DATA_DIR of its own; `task2vec serve "
            "--no-worker` serves beside it.",
        ) from None
    try:
        yield
    finally:
        lock.release()


def wait_for_predecessor(data_dir: Path, on_waiting: Callable[[], None]) -> None:
    """Where there is one, `on_waiting` is called. Raises Conflict where it stays."""
    if not data_dir.is_dir():
        return
    try:
        with _lock(data_dir).acquire(timeout=0):
            return
    except Timeout:
        on_waiting()
    with only_worker(data_dir):
        pass


def _lock(data_dir: Path) -> FileLock:
    return FileLock(data_dir / "worker.lock")
