"""Nearest points in memory: exact while they are few, in lists by their neighbourhood beyond."""

from __future__ import annotations

import threading
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]
Matrix = npt.NDArray[np.float32]

LISTED = 50_000
"""So many points and more lie in lists, of which a search reads the nearest few."""
OUTGROWN = 4.0
"""Times as many points as the lists were made for."""
PROBED = 24
"""One list of so many is read, at least LEAST_PROBED."""
LEAST_PROBED = 32
_TRAINED_ON = 40  # points a list
_ROUNDS = 8  # of k-means: a few more move hardly any point


class FaissIndex:
    """Points, numbered in the order in which they came, by L2.

    `points`  (M, d) that decide whether there are lists, and what they are
    """

    def __init__(self, points: Matrix, *, listed: int = LISTED) -> None:
        self._listed = listed
        self._made_for = len(points)
        self._index = _empty(points, listed)
        # Searches would be safe beside each other, but not beside a write that moves the points.
        self._lock = threading.Lock()
        self.add(points)

    @classmethod
    def read(cls, path: Path) -> FaissIndex | None:
        """What `write` kept; None where that is nothing or not whole."""
        try:
            kept = faiss.read_index(str(path))
        except RuntimeError:
            return None
        found = cls.__new__(cls)
        found._listed, found._made_for = LISTED, int(kept.ntotal)
        found._index, found._lock = kept, threading.Lock()
        return found

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def has_lists(self) -> bool:
        return isinstance(self._index, faiss.IndexIVF)

    @property
    def bytes_per_point(self) -> int:
        """With the number of the point, which lists keep beside it."""
        return int(self._index.sa_code_size())

    @property
    def outgrown(self) -> bool:
        """Whether one made anew of the points would serve them better."""
        if self.has_lists:
            return len(self) >= OUTGROWN * self._made_for
        return len(self) >= self._listed

    def add(self, points: Matrix) -> None:
        if len(points):
            with self._lock:
                self._index.add(points)

    def search(self, point: Matrix, n: int, among: Rows | None = None) -> Rows:
        """At most `n` numbers, nearest to `point` first; only those `among`, where given."""
        parameters = faiss.SearchParameters()
        if isinstance(self._index, faiss.IndexIVF):
            parameters = faiss.SearchParametersIVF()
            parameters.nprobe = self._probed(self._index.nlist, n, among)
        if among is not None:
            chosen = np.zeros(len(self), dtype=bool)
            chosen[among[among < len(self)]] = True
            bits = np.packbits(chosen, bitorder="little")  # the parameters only point to these
            selector = faiss.IDSelectorBitmap(len(bits), faiss.swig_ptr(bits))
            parameters.sel = selector
        with self._lock:
            # One query on busy cores waits for its threads far longer than it computes. OpenMP
            # keeps this number per calling thread, so it is set here and not once.
            faiss.omp_set_num_threads(1)
            _, found = self._index.search(point[np.newaxis], min(n, len(self)), params=parameters)
        rows: Rows = found[0]
        return rows[rows >= 0]

    def _probed(self, lists: int, n: int, among: Rows | None) -> int:
        """Lists to read: a share of them, and enough to hold what is asked for many times over."""
        holding = -(-4 * n * lists // max(1, len(self) if among is None else len(among)))
        return min(lists, max(LEAST_PROBED, lists // PROBED, holding))

    def write(self, path: Path) -> None:
        with self._lock:
            faiss.write_index(self._index, str(path))


def nearest(points: Matrix, others: Matrix, k: int, *, itself: bool) -> Rows:
    """(M, k) numbers of the others nearest to each point.

    `itself`  the others are the points: none is its own neighbour
    """
    index, more = FaissIndex(others), int(itself)
    k = min(k, len(others) - more)
    result = np.empty((len(points), k), np.int64)
    for i, point in enumerate(points):
        found = index.search(point, k + more)
        result[i] = found[found != i][:k] if itself else found
    return result


def _empty(points: Matrix, listed: int) -> faiss.Index:
    width = points.shape[1]
    if len(points) < listed:
        # Halves of floats: half the memory to read, and an error far below that of the points.
        flat = faiss.IndexScalarQuantizer(width, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_L2)
        flat.train(points)
        return flat
    lists = 2 ** round(np.log2(4 * np.sqrt(len(points))))
    index = faiss.index_factory(width, f"IVF{lists},SQ8", faiss.METRIC_L2)
    clustering = faiss.extract_index_ivf(index).cp
    clustering.niter, clustering.seed = _ROUNDS, 0
    chosen = np.random.default_rng(0).permutation(len(points))[: _TRAINED_ON * lists]
    index.train(points[np.sort(chosen)])
    return index
