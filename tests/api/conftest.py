"""The real service on a real SQLite file; tasks become ready without a network looking at them."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.api.main import create_app
from app.api.resources import Resources
from app.cost.evidence import Evidence
from app.embedding.vector import RANK, Noise, TaskEmbedding
from app.jobs import recalibrate
from app.reference.library import task_card, write_library
from app.settings import Settings, shared_directory
from app.store import embeddings, jobs, workers
from app.store.intake import Intake
from app.store.tables import Worker, now
from tests.engines import Engines
from tests.provenance import PROVENANCE

SPACE = "a" * 16
OTHER_SPACE = "b" * 16
LIBRARY_SPACE = "c" * 16
DIMENSIONS = 64
RESPONSES = 10
DIMENSIONS_OF = {SPACE: DIMENSIONS, OTHER_SPACE: 48, LIBRARY_SPACE: DIMENSIONS}


def archive_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path, data in files.items():
            archive.writestr(path, data)
    return buffer.getvalue()


ARCHIVE = archive_of({"cat/1.png": b"first", "dog/2.png": b"second"})


def embedding_of(seed: int, space_id: str = SPACE) -> TaskEmbedding:
    rng = np.random.default_rng(seed)
    vector, domain, error = np.exp(rng.normal(size=(3, DIMENSIONS_OF[space_id]))).astype(np.float32)
    discriminants = rng.normal(size=(RANK, RESPONSES)).astype(np.float32)
    return TaskEmbedding(
        vector=vector,
        domain=domain,
        discriminants=discriminants,
        draw_error=error,
        sampling_error=error,
        noise=Noise({"cosine": 0.01}),
        epsilon=1e-12,
        space_id=space_id,
        provenance=replace(PROVENANCE, seed=seed),
    )


@dataclass(frozen=True)
class Service:
    """The service from outside, and the worker's part played by hand."""

    client: TestClient
    resources: Resources

    def send(
        self, archive: bytes = ARCHIVE, path: str = "/v1/tasks", key: str = "", **metadata: Any
    ) -> Any:
        return self.client.post(
            path,
            files={"archive": ("animals.zip", archive, "application/zip")},
            data={"metadata": json.dumps(metadata)},
            headers={"Idempotency-Key": key} if key else {},
        )

    def warm_up(self) -> None:
        worker = Worker(
            id="w1",
            probe="tf_efficientnet_lite0",
            space_id=SPACE,
            device="cpu",
            code_version="test",
            started_at=now(),
            heartbeat_at=now(),
        )
        with self.resources.database.session() as session:
            workers.register(session, worker)

    def start(self, job_id: str) -> int:
        with self.resources.database.session() as session:
            start = jobs.start_job(session, job_id, max_attempts=3)
            assert start is not None
            return start.token

    def report(self, job_id: str, token: int, phase: str, done: int, total: int) -> None:
        with self.resources.database.session() as session:
            jobs.report_progress(session, job_id, token, phase, done, total, 1.5)

    def succeed(self, job_id: str, token: int, seed: int = 0, space_id: str = SPACE) -> None:
        files = [{"path": "cat/1.png", "status": "used", "label": "cat", "reason": None}]
        summary = {"used": 40, "skipped": 0, "classes": {"cat": 20, "dog": 20}, "warnings": []}
        with self.resources.database.session() as session:
            recipe = hashlib.sha256(f"{seed} {space_id}".encode()).hexdigest()
            row = embeddings.add(session, "local", recipe, embedding_of(seed, space_id))
            intake = Intake("single_label", 40, 2, summary, files)
            jobs.finish_job(session, job_id, token, "succeeded", intake=intake, embedding=row)

    def refuse(self, job_id: str, problem: dict[str, Any], intake: Intake | None = None) -> None:
        token = self.start(job_id)
        with self.resources.database.session() as session:
            jobs.finish_job(session, job_id, token, "refused", problem=problem, intake=intake)

    def ready(self, seed: int = 0, space_id: str = SPACE, **metadata: Any) -> str:
        """The id of a task that went all the way."""
        accepted = self.send(**metadata).json()
        self.succeed(accepted["job_id"], self.start(accepted["job_id"]), seed, space_id)
        task_id: str = accepted["id"]
        return task_id

    def recalibrate(self) -> int:
        return recalibrate.refresh(self.resources.database, Evidence.of([]))

    def blobs(self) -> list[str]:
        return self.resources.blobs.stored()


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shipped cards, of candidates a few, and a small library in a space of its own.

    One candidate's source task is not here, as those of shipped candidates mostly are not.
    """
    shipped, directory = shared_directory("models"), tmp_path_factory.mktemp("models")
    for kind in ("devices", "probes", "recipes"):
        (directory / kind).symlink_to(shipped / kind)
    (directory / "candidates").mkdir()
    for card in sorted((shipped / "candidates").glob("*.toml"))[:3]:
        (directory / "candidates" / card.name).symlink_to(card)
    far = directory / "candidates" / "far.toml"
    far.write_text(f'source_task = "elsewhere"\n{card.read_text().replace(card.stem, far.stem, 1)}')
    library = [
        (
            task_card(embedding, name=f"shipped-{seed}", tags=[], source="a set", licence="MIT"),
            embedding,
        )
        for seed in (1, 2)
        for embedding in [embedding_of(seed, LIBRARY_SPACE)]
    ]
    write_library(directory / "reference" / "tf_efficientnet_lite0.npz", library)
    return directory


@pytest.fixture
def settings(tmp_path: Path, models_dir: Path, engines: Engines) -> Settings:
    return Settings(
        **engines.settings,
        data_dir=tmp_path / "data",
        models_dir=models_dir,
        poll_interval_seconds=0.01,
    )


@pytest.fixture
def serve(settings: Settings) -> Iterator[Callable[..., Service]]:
    """Starts the service with some settings changed."""
    clients: list[TestClient] = []

    def start(**changes: Any) -> Service:
        app: FastAPI = create_app(settings.model_copy(update=changes))
        client = TestClient(app, base_url="http://localhost", raise_server_exceptions=False)
        client.__enter__()
        clients.append(client)
        return Service(client, app.state.resources)

    yield start
    for client in clients:
        client.__exit__(None, None, None)


@pytest.fixture
def service(serve: Callable[..., Service]) -> Service:
    return serve()


def assert_problem(response: Any, status: int, code: str) -> dict[str, Any]:
    """It is an RFC 9457 document of that code that says what to change."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert problem["type"] == f"/problems/{code}", problem
    assert problem["status"] == status
    assert problem["detail"]
    assert problem["remedy"]
    return problem
