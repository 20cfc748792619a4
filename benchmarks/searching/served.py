"""The same tasks in a real database, searched as a request searches them, under every metric."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from sqlalchemy.orm import Session

from app.embedding.distance import METRICS, one_to_many
from app.embedding.parts import Array
from app.embedding.vector import RANK, Noise, Provenance, TaskEmbedding
from app.settings import Settings, VectorIndex, shared_directory
from app.store import embeddings
from app.store.indexes import open_indexes
from app.store.neighbours import Query, neighbours
from app.store.search import Indexes
from app.store.session import Database
from app.store.tables import ReferenceLibrary, Task
from app.store.vectors import Matrix, Rows
from benchmarks.searching.made import K, Made

SPACE = "benchmark"
TENANT = "benchmark"
TRUE_QUERIES = 8
"""Queries that all tasks are ranked for under every metric, which takes a second each."""
_CHUNK = 128


@dataclass(frozen=True, slots=True)
class Served:
    """By metric: recall at K over the first queries, and the median latency over all; how long the
    indexes took to be made, first searches among it."""

    recall: Mapping[str, float]
    latency_ms: Mapping[str, float]
    making_seconds: float


def measure(made: Made, postgresql: str | None = None) -> Served:
    """On SQLite and FAISS, or on a PostgreSQL that has pgvector and nothing else to do."""
    url = postgresql or f"sqlite:///{made.directory / 'store.sqlite'}"
    database, proposed = _database(made, url), Settings().search_candidates
    choice: VectorIndex = "pgvector" if postgresql else "faiss"
    indexes = open_indexes(choice, made.directory / "served", database)
    rows, seqs = made.query_rows(), made.query_seqs
    recall, latency = {}, {}
    with database.session(read_only=True) as session:
        nearest = _truth(session, made, rows[:TRUE_QUERIES], seqs[:TRUE_QUERIES])
    making = 0.0
    for metric, true in nearest.items():
        started = time.perf_counter()
        for _ in range(2):  # the first may find the index as it is made, the second waits for it
            _ask(database, indexes, made, rows[0], metric, proposed)
            indexes.wait()
        making += time.perf_counter() - started
        taken, shares = [], []
        for i, row in enumerate(rows):
            started = time.perf_counter()
            found = _ask(database, indexes, made, row, metric, proposed)
            taken.append(time.perf_counter() - started)
            if i < len(true):
                first = [seq for seq in found if seq != seqs[i]][:K]
                shares.append(len(set(first) & set(true[i].tolist())) / K)
        recall[metric] = float(np.mean(shares))
        latency[metric] = float(np.median(taken) * 1e3)
    database.dispose()
    return Served(recall, latency, making)


def _ask(
    database: Database, indexes: Indexes, made: Made, row: Matrix, metric: str, proposed: int
) -> list[int | None]:
    dim = made.library.vector.shape[1]
    vector, domain, axes = np.split(row, [dim, 2 * dim])
    with database.session(read_only=True) as session:
        found = neighbours(
            session,
            indexes,
            TENANT,
            Query(SPACE, vector, domain, axes.reshape(RANK, -1)),
            k=K + 1,
            metric=metric,
            search_candidates=proposed,
        )
        return [near.task.embedding_seq for near in found.neighbours]


def _truth(session: Session, made: Made, rows: Matrix, seqs: Rows) -> dict[str, Rows]:
    """By metric (Q, K): all embeddings ranked exactly."""
    tasks = made.library
    dim, asked = tasks.vector.shape[1], made.parts(rows)
    every = [seq for seq, _ in embeddings.added(session, SPACE, 0)]
    distances: dict[str, list[Array]] = {name: [] for name in METRICS}
    for _, others in embeddings.chunks(session, every, "parts"):
        parts = made.parts(others)
        for name, metric in METRICS.items():
            if metric.compares == "parts":
                found = 1 - asked.alike(parts, metric.weights)
            else:
                found = np.stack(
                    [
                        one_to_many(
                            row[:dim],
                            others[:, :dim],
                            name,
                            epsilon=tasks.epsilon,
                            trivial=tasks.trivial,
                        )
                        for row in rows
                    ]
                )
            distances[name].append(found)
    result = {}
    for name, pieces in distances.items():
        whole = np.concatenate(pieces, axis=1)
        whole[seqs[:, None] == np.array(every)[None, :]] = np.inf
        result[name] = np.array(every)[np.argsort(whole, axis=1, kind="stable")[:, :K]]
    return result


def _database(made: Made, url: str) -> Database:
    """As the service would have filled it; what is there is not redone."""
    on_disk = url.startswith("sqlite")
    whole = made.directory / "store.whole"
    database = Database(url)
    if on_disk and whole.exists():
        return database
    if on_disk:
        for old in made.directory.glob("store.sqlite*"):
            old.unlink()
    else:
        database.migrate(shared_directory("migrations"), "base")
    database.migrate(shared_directory("migrations"))
    population = made.library.population
    means = np.stack([population.label, population.domain])
    with database.session() as session:
        session.add(
            ReferenceLibrary(
                probe="benchmark",
                digest="",
                space_id=SPACE,
                trivial=made.library.trivial,
                population=means.astype("<f4").tobytes(),
            )
        )
    seq = 0
    for number in made.groves:
        rows = made.rows(number)
        for start in range(0, len(rows), _CHUNK):
            with database.session() as session:
                for row in rows[start : start + _CHUNK]:
                    seq += 1
                    session.add(_task(session, seq, _embedding(made, row)))
    if on_disk:
        whole.touch()
    return database


def _task(session: Session, seq: int, embedding: TaskEmbedding) -> Task:
    return Task(
        name=f"task {seq}",
        tenant=TENANT,
        label_kind="single_label",
        label_kind_asked="single_label",
        probe="benchmark",
        status="ready",
        n_images=embedding.provenance.n_images,
        n_classes=embedding.provenance.n_classes,
        embedding=embeddings.add(session, TENANT, f"task {seq}", embedding),
    )


def _embedding(made: Made, row: Matrix) -> TaskEmbedding:
    dim = made.library.vector.shape[1]
    vector, domain, axes = np.split(row, [dim, 2 * dim])
    return TaskEmbedding(
        vector=vector,
        domain=domain,
        discriminants=axes.reshape(RANK, -1),
        draw_error=np.zeros_like(vector),
        sampling_error=made.library.sampling * vector,
        noise=Noise({"cosine": 0.01}),
        epsilon=made.library.epsilon,
        space_id=SPACE,
        provenance=_PROVENANCE,
    )


_PROVENANCE = Provenance(
    probe="benchmark",
    probe_digest="",
    preprocessing="",
    estimator="hutchinson",
    draws=1,
    seed=0,
    n_images=100,
    n_classes=5,
    label_kind="single_label",
    penalty=1.0,
    cv_log_likelihood=None,
    cv_accuracy=None,
    code_version="",
    device="",
    seconds=0.0,
)
