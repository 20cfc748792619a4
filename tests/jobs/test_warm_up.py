"""A service is ready once its worker's probe is warm, and not before."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.api.main import create_app
from app.jobs.supervisor import WorkerSupervisor
from app.settings import Settings
from tests.jobs.held import COLD, WARMING, WORKER_COMMAND
from tests.jobs.test_supervisor import wait_until

PATIENCE_SECONDS = 120


@pytest.mark.engines("embedded")
def test_a_worker_is_told_of_once_its_probe_is_warm(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cold = tmp_path / "cold"
    cold.touch()
    monkeypatch.setenv(COLD, str(cold))
    supervisor = WorkerSupervisor(settings, command=WORKER_COMMAND)
    with TestClient(create_app(settings), base_url="http://localhost") as client:
        supervisor.start()
        try:
            wait_until(lambda: cold.read_text() == WARMING, PATIENCE_SECONDS)
            time.sleep(0.5)  # long enough for one that is told of too early to show
            reasons = client.get("/readyz").json()["reasons"]
            assert reasons == ["no worker has warmed up yet, or its heartbeat stopped"]
            cold.unlink()
            wait_until(lambda: client.get("/readyz").status_code == 200, PATIENCE_SECONDS)
        finally:
            supervisor.stop()
        assert client.get("/readyz").status_code == 503
