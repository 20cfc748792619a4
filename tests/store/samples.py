from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from sqlalchemy.orm import Session

from app.embedding.vector import RANK, Noise, TaskEmbedding
from app.reference.library import task_card, write_library
from app.store import embeddings, jobs, tasks
from app.store.blobs import Blob
from app.store.intake import Intake
from app.store.tables import Job, Task
from tests.provenance import PROVENANCE

RESPONSES = 10


class Heard(dict[str, list[tuple[int, int]]]):
    """What was told of each phase, in order."""

    def __call__(self, phase: str, done: int, total: int) -> None:
        self.setdefault(phase, []).append((done, total))


ARCHIVE = Blob("a" * 64, 1_000)
MORE = Blob("b" * 64, 2_000)
INTAKE = Intake("single_label", 40, 2, {"used": 40}, [{"path": "cat/1.png", "status": "used"}])


def make_embedding(
    seed: int = 0,
    *,
    dimensions: int = 24,
    space_id: str = "space",
    noise_floor: float = 0.01,
    noise: Noise | None = None,
    probe: str = PROVENANCE.probe,
) -> TaskEmbedding:
    """Positive, spread over decades as real ones are, with a dead filter."""
    generator = np.random.default_rng(seed)
    logs = generator.normal(-4, 1.5, (2, dimensions))
    vector, domain = np.exp(logs).astype(np.float32)
    vector[-1] = 0
    discriminants = generator.normal(size=(RANK, RESPONSES)).astype(np.float32)
    return TaskEmbedding(
        vector=vector,
        domain=domain,
        discriminants=discriminants,
        draw_error=vector * np.float32(0.1),
        sampling_error=vector * np.float32(0.2),
        noise=noise or Noise({"cosine": noise_floor}),
        epsilon=1e-9,
        space_id=space_id,
        provenance=replace(PROVENANCE, probe=probe),
    )


def accept_task(
    session: Session,
    *,
    tenant: str = "acme",
    name: str = "cats",
    tags: tuple[str, ...] = (),
    archive: Blob | None = ARCHIVE,
) -> tuple[Task, Job]:
    return tasks.create_task(
        session,
        tenant,
        name=name,
        tags=tags,
        label_kind="auto",
        probe="probe",
        archive=archive,
        source=None if archive else "file:///data/cats.zip",
    )


def ready_task(
    session: Session,
    embedding: TaskEmbedding,
    *,
    recipe: str | None = None,
    tenant: str = "acme",
    name: str = "cats",
    tags: tuple[str, ...] = (),
    archive: Blob = ARCHIVE,
) -> Task:
    """A task that a worker brought to its end."""
    task, job = accept_task(session, tenant=tenant, name=name, tags=tags, archive=archive)
    start = jobs.start_job(session, job.id, max_attempts=3)
    assert start is not None
    row = embeddings.add(session, tenant, recipe or f"recipe of {task.id}", embedding)
    jobs.finish_job(session, job.id, start.token, "succeeded", intake=INTAKE, embedding=row)
    return task


def ship(models_dir: Path, made: dict[str, TaskEmbedding], probe: str = "probe") -> Path:
    """A reference library of made-up tasks."""
    path = models_dir / "reference" / f"{probe}.npz"
    cards = [
        task_card(embedding, name=name, tags=["reference", "glyphs"], source="a set", licence="MIT")
        for name, embedding in made.items()
    ]
    write_library(path, list(zip(cards, made.values(), strict=True)))
    return path


def without(path: Path, *names: str) -> None:
    """The library file, less some of its arrays."""
    with np.load(path) as library:
        arrays = {name: library[name] for name in library if name not in names}
    np.savez(path, **arrays)
