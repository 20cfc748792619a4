"""The search index by log-embeddings, for metrics on vectors.

The paper's cosine is normalised pairwise, so it is no inner product and no index can search it.
What finds its neighbours is L2 between log-embeddings. They are projected to few dimensions at
random, which keeps distances about as they are whatever tasks there are; what all filters share,
the mean, is a coordinate of its own, as a projection would blur what is as large as all the rest.
Who asks ranks exactly what is proposed.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import ClassVar

import numpy as np

from app.embedding.projection import PROJECTED, log_points, unit
from app.store.embeddings import Space
from app.store.shelf import Arrays, Column
from app.store.space_index import EXHAUSTIVE, FAR, GONE, Found, SpaceIndex
from app.store.vectors import FaissIndex, Matrix, Rows, nearest


class LogsIndex(SpaceIndex):
    compares = "vector"
    _blank: ClassVar = {"points": FAR}
    rounding = 0.5  # points lie tens apart

    def __init__(self, directory: Path, space: Space) -> None:
        super().__init__(directory, {"points": Column("<f2", PROJECTED + 1)})
        self._epsilon = space.epsilon
        self._mutex = threading.Lock()
        self._searched: FaissIndex | None = None

    def search(self, query: Matrix, n: int, among: Rows | None = None) -> Found:
        """The `n` tasks whose points are nearest to the query's (D,); only those `among` (seqs)."""
        seqs = self.seqs()
        rows = None if among is None else np.flatnonzero(np.isin(seqs, among))
        exhaustive = len(seqs if rows is None else rows) <= min(n, EXHAUSTIVE)
        if not exhaustive:
            rows = self._points().search(log_points(query[np.newaxis], self._epsilon)[0], n, rows)
        elif rows is None:
            rows = np.arange(len(seqs))
        found = seqs[rows]
        return Found(found[found != GONE], exhaustive)

    def points(self, seqs: Rows) -> Matrix:
        """How tasks differ from filter to filter; their scale is left out."""
        return unit(self._of(seqs)[:, :PROJECTED])

    def nearest(self, seqs: Rows, k: int, onto: Rows | None = None) -> Rows:
        points = self._of(seqs)
        others = points if onto is None else self._of(onto)
        return nearest(points, others, k, itself=onto is None)

    def _of(self, seqs: Rows) -> Matrix:
        points: Matrix = self.shelf.column("points")[self.rows_of(seqs)].astype(np.float32)
        return points

    def _points(self) -> FaissIndex:
        points = self.shelf.column("points")
        with self._mutex:
            index = self._searched
            if index is None or len(index) > len(points) or index.outgrown:
                index = self._searched = FaissIndex(np.asarray(points, np.float32))
            elif len(index) < len(points):
                index.add(np.asarray(points[len(index) :], np.float32))
            return index

    def _columns_of(self, rows: Matrix) -> Arrays:
        return {"points": log_points(rows, self._epsilon).astype(np.float16)}
