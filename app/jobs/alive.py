"""Whether the worker of a data directory still turns: what its container's probes ask.

A file that its main loop touches, and no row: while the database is away a worker waits for it, and
to start it anew would help nobody.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from app.settings import Settings

SILENCE_SECONDS = 60.0


def beat(data_dir: Path) -> None:
    _file(data_dir).touch()


def is_alive(data_dir: Path) -> bool:
    try:
        beaten = _file(data_dir).stat().st_mtime
    except FileNotFoundError:
        return False
    return time.time() - beaten < SILENCE_SECONDS


def _file(data_dir: Path) -> Path:
    return data_dir / "worker.alive"


if __name__ == "__main__":
    sys.exit(0 if is_alive(Settings().data_dir) else 1)
