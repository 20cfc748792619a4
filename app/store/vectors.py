"""The vector index: a disposable cache of the embeddings table that proposes candidates.

The paper's cosine is normalised pairwise, so it is no inner product and no index can search it.
What finds its neighbours is L2 between log-embeddings, each centred on its own mean, projected to
few dimensions at random; exact ranking follows.
"""

from __future__ import annotations

import threading
from typing import Protocol

import faiss
import numpy as np
import numpy.typing as npt
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.store import embeddings
from app.store.embeddings import Part
from app.store.tables import Embedding

Ids = npt.NDArray[np.int64]
Matrix = npt.NDArray[np.float32]

PROJECTED_DIMENSIONS = 256


class VectorIndex(Protocol):
    """Ids are embeddings' seqs; vectors (M, D) are embeddings as the store keeps them."""

    @property
    def ids(self) -> Ids: ...

    def add(self, ids: Ids, vectors: Matrix) -> None: ...

    def remove(self, ids: Ids) -> None: ...

    def search(self, vector: Matrix, n: int, among: Ids | None = None) -> Ids:
        """At most `n` ids, nearest to `vector` (D,) first; only ids `among`, where given."""
        ...


class FaissIndex:
    """Exact L2 over Gaussian projections; the same seed gives the same candidates."""

    def __init__(self, dimensions: int, epsilon: float, seed: int = 0) -> None:
        self._epsilon = epsilon
        generator = np.random.default_rng(seed)
        self._projection = generator.standard_normal(
            (dimensions, PROJECTED_DIMENSIONS), dtype=np.float32
        ) / np.float32(np.sqrt(PROJECTED_DIMENSIONS))
        self._index = faiss.IndexIDMap2(faiss.IndexFlatL2(PROJECTED_DIMENSIONS))
        # Searches would be safe beside each other, but not beside a write that moves the rows.
        self._lock = threading.Lock()

    @property
    def ids(self) -> Ids:
        with self._lock:
            ids: Ids = faiss.vector_to_array(self._index.id_map)
        return ids

    def add(self, ids: Ids, vectors: Matrix) -> None:
        projected = self._project(vectors)
        with self._lock:
            self._index.add_with_ids(projected, ids)

    def remove(self, ids: Ids) -> None:
        with self._lock:
            self._index.remove_ids(faiss.IDSelectorBatch(ids))

    def search(self, vector: Matrix, n: int, among: Ids | None = None) -> Ids:
        projected = self._project(vector[np.newaxis])
        parameters = faiss.SearchParameters()
        if among is not None:
            selector = faiss.IDSelectorBatch(among)  # the parameters only point to it
            parameters.sel = selector
        with self._lock:
            # One query on busy cores waits for its threads far longer than it computes. OpenMP
            # keeps this number per calling thread, so it is set here and not once.
            faiss.omp_set_num_threads(1)
            _, rows = self._index.search(projected, n, params=parameters)
        ids: Ids = rows[0]
        return ids[ids >= 0]

    def _project(self, vectors: Matrix) -> Matrix:
        logs = np.log2(vectors + np.float32(self._epsilon))
        logs -= logs.mean(axis=1, keepdims=True)
        projected: Matrix = logs @ self._projection
        return projected


class IndexCache:
    """One index per space and part, brought in line with the database before each use."""

    def __init__(self) -> None:
        self._indexes: dict[tuple[str, Part], FaissIndex] = {}
        self._lock = threading.Lock()

    def sync(self, session: Session, space_id: str, part: Part = "vector") -> VectorIndex:
        """The space's index, holding what this session sees; DifferentSpaces where that is nothing.

        Rows are compared by number and sum of their seqs, and as sets where those differ: on
        PostgreSQL a lower seq may become visible after a higher one, so no watermark would do.
        """
        space = embeddings.get_space(session, space_id)
        in_space = Embedding.space_id == space_id
        count, total = session.execute(
            select(func.count(), func.sum(Embedding.seq)).where(in_space)
        ).one()
        with self._lock:
            index = self._indexes.get((space_id, part))
            if index is None:
                seed = int.from_bytes(space_id.encode())
                index = FaissIndex(space.dimensions, space.epsilon, seed)
                self._indexes[space_id, part] = index
            held = index.ids
            if (len(held), int(held.sum())) != (count, int(total)):
                query = select(Embedding.seq).where(in_space)
                present = np.fromiter(session.scalars(query), dtype=np.int64)
                gone = np.setdiff1d(held, present)
                # What is newer than this session's view was another thread's to add, and stays.
                index.remove(gone[gone <= present.max()])
                missing = np.setdiff1d(present, held).tolist()
                for seqs, vectors in embeddings.chunks(session, missing, part):
                    index.add(np.array(seqs, dtype=np.int64), vectors)
        return index
