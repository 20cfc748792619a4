"""Runs that were made, one file each, so that a benchmark that was cut off goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from benchmarks.learning.training import Look


def made(path: Path, run: Callable[[], list[Look]]) -> list[Look]:
    """What lies at `path`, or the run, which then does."""
    if path.is_file():
        return read(path)
    started = time.perf_counter()
    found = run()
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".tmp")
    scratch.write_text(json.dumps([asdict(look) for look in found]))
    scratch.replace(path)
    print(f"{path.stem:32} {time.perf_counter() - started:6.0f} s", flush=True)
    return found


def read(path: Path) -> list[Look]:
    return [Look(**look) for look in json.loads(path.read_text())]
