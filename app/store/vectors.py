"""The vector index: a disposable cache of the embeddings table that proposes candidates.

The paper's cosine is normalised pairwise, so it is no inner product and no index can search it.
What finds its neighbours, and those of every metric on vectors alone, is L2 between log-embeddings,
each centred on its own mean. For metrics on parts it is L2 between points whose inner products rank
tasks as these do, the discriminants about so. Either is projected to few dimensions at random;
exact ranking follows.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import faiss
import numpy as np
import numpy.typing as npt
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.embedding.distance import get_metric
from app.embedding.parts import Parts, Population, points_width
from app.store import embeddings
from app.store.embeddings import Space
from app.store.tables import Embedding

Ids = npt.NDArray[np.int64]
Matrix = npt.NDArray[np.float32]

PROJECTED_DIMENSIONS = 256


class VectorIndex(Protocol):
    """Ids are embeddings' seqs; rows are as the store gives them."""

    @property
    def ids(self) -> Ids: ...

    def add(self, ids: Ids, rows: Matrix) -> None: ...

    def remove(self, ids: Ids) -> None: ...

    def search(self, row: Matrix, n: int, among: Ids | None = None) -> Ids:
        """At most `n` ids, nearest to `row` first; only ids `among`, where given."""
        ...


class FaissIndex:
    """Exact L2 over Gaussian projections; the same seed gives the same candidates.

    `width`   of the points
    `points`  rows as the points (M, width) whose L2 is to propose
    """

    def __init__(self, width: int, points: Callable[[Matrix], Matrix], seed: int = 0) -> None:
        self._points = points
        generator = np.random.default_rng(seed)
        self._projection = generator.standard_normal(
            (width, PROJECTED_DIMENSIONS), dtype=np.float32
        ) / np.float32(np.sqrt(PROJECTED_DIMENSIONS))
        self._index = faiss.IndexIDMap2(faiss.IndexFlatL2(PROJECTED_DIMENSIONS))
        # Searches would be safe beside each other, but not beside a write that moves the rows.
        self._lock = threading.Lock()

    @property
    def ids(self) -> Ids:
        with self._lock:
            ids: Ids = faiss.vector_to_array(self._index.id_map)
        return ids

    def add(self, ids: Ids, rows: Matrix) -> None:
        projected = self._project(rows)
        with self._lock:
            self._index.add_with_ids(projected, ids)

    def remove(self, ids: Ids) -> None:
        with self._lock:
            self._index.remove_ids(faiss.IDSelectorBatch(ids))

    def search(self, row: Matrix, n: int, among: Ids | None = None) -> Ids:
        projected = self._project(row[np.newaxis])
        parameters = faiss.SearchParameters()
        if among is not None:
            selector = faiss.IDSelectorBatch(among)  # the parameters only point to it
            parameters.sel = selector
        with self._lock:
            # One query on busy cores waits for its threads far longer than it computes. OpenMP
            # keeps this number per calling thread, so it is set here and not once.
            faiss.omp_set_num_threads(1)
            _, found = self._index.search(projected, n, params=parameters)
        ids: Ids = found[0]
        return ids[ids >= 0]

    def _project(self, rows: Matrix) -> Matrix:
        projected: Matrix = self._points(rows) @ self._projection
        return projected


def centred_logs(rows: Matrix, epsilon: float) -> Matrix:
    """log2 of the rows (M, D), each less its own mean: tasks that differ in scale fall together."""
    logs: Matrix = np.log2(rows + np.float32(epsilon))
    logs -= logs.mean(axis=1, keepdims=True)
    return logs


@dataclass(frozen=True, slots=True)
class _Held:
    index: FaissIndex
    population: Population | None  # that its points are centred on


class IndexCache:
    """One index per space for all metrics on vectors, and one for each metric on parts.

    Each is brought in line with the database before it is used.
    """

    def __init__(self) -> None:
        self._indexes: dict[tuple[str, str], _Held] = {}
        self._lock = threading.Lock()

    def sync(
        self,
        session: Session,
        space_id: str,
        metric: str = "cosine",
        population: Population | None = None,
    ) -> VectorIndex:
        """The index for that metric, holding what this session sees of the space.

        Raises DifferentSpaces where that is nothing, InvalidRequest where the metric compares
        parts and there is no `population`.

        Rows are compared by number and sum of their seqs, and as sets where those differ: on
        PostgreSQL a lower seq may become visible after a higher one, so no watermark would do.
        """
        space = embeddings.get_space(session, space_id)
        in_space = Embedding.space_id == space_id
        count, total = session.execute(
            select(func.count(), func.sum(Embedding.seq)).where(in_space)
        ).one()
        with self._lock:
            index = self._index(space_id, space, metric, population)
            held = index.ids
            if (len(held), int(held.sum())) != (count, int(total)):
                query = select(Embedding.seq).where(in_space)
                present = np.fromiter(session.scalars(query), dtype=np.int64)
                gone = np.setdiff1d(held, present)
                # What is newer than this session's view was another thread's to add, and stays.
                index.remove(gone[gone <= present.max()])
                missing = np.setdiff1d(present, held).tolist()
                for seqs, rows in embeddings.chunks(session, missing, get_metric(metric).compares):
                    index.add(np.array(seqs, dtype=np.int64), rows)
        return index

    def _index(
        self, space_id: str, space: Space, metric: str, population: Population | None
    ) -> FaissIndex:
        """A new one where there is none, or where the library brought another population."""
        chosen = get_metric(metric)
        of_parts = chosen.compares == "parts"
        key = (space_id, metric if of_parts else "logs")
        centre = population if of_parts else None
        held = self._indexes.get(key)
        if held is not None and _same(held.population, centre):
            return held.index

        def points(rows: Matrix) -> Matrix:
            if not of_parts:
                return centred_logs(rows, space.epsilon)
            return Parts.of(rows, space.epsilon, centre).points(chosen.weights)

        width = points_width(space.dimensions) if of_parts else space.dimensions
        index = FaissIndex(width, points, seed=int.from_bytes(space_id.encode()))
        self._indexes[key] = _Held(index, centre)
        return index


def _same(one: Population | None, other: Population | None) -> bool:
    if one is None or other is None:
        return one is other
    return np.array_equal(one.label, other.label) and np.array_equal(one.domain, other.domain)
