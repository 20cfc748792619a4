"""What probes of a container learn of a worker."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from unittest.mock import Mock

import pytest

from app.jobs import alive, worker
from app.settings import Settings
from app.store.session import Database


def asked(data_dir: Path) -> int:
    """As a probe asks."""
    environment = os.environ | {"TASK2VEC_DATA_DIR": str(data_dir)}
    command = [sys.executable, "-m", alive.__name__]
    return subprocess.run(command, env=environment, check=False).returncode


def test_a_worker_is_alive_from_its_first_turn_until_it_turns_no_more(tmp_path: Path) -> None:
    assert asked(tmp_path) == 1
    alive.beat(tmp_path)
    assert asked(tmp_path) == 0
    long_ago = time.time() - alive.SILENCE_SECONDS - 1
    os.utime(tmp_path / "worker.alive", (long_ago, long_ago))
    assert asked(tmp_path) == 1


@pytest.mark.engines("embedded")
def test_a_worker_whose_database_is_away_is_alive(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopping = threading.Event()

    def fail(*_: object) -> None:
        stopping.set()
        raise OSError("away")

    monkeypatch.setattr(worker, "dispatch", fail)
    monkeypatch.setattr(worker, "PAUSE_AFTER_ERROR_SECONDS", 0)
    settings.data_dir.mkdir(exist_ok=True)
    assert not alive.is_alive(settings.data_dir)
    worker._dispatch_until(stopping, settings, database, Mock(), "w", threading.Event())
    assert alive.is_alive(settings.data_dir)
