"""An index of made-up tasks, and which of them are truly nearest to the queries.

Truth is kept a file a grove, so that a run that was cut off goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from app.embedding.distance import COMBINED
from app.embedding.parts import Parts
from app.store.embeddings import Space
from app.store.parts_index import PartsIndex
from app.store.vectors import Matrix, Rows
from benchmarks.searching.population import GROVE, LIBRARY, Library

K = 10


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """A population of `size` tasks under a directory of its own; seqs are 1 to `size`."""

    directory: Path
    size: int
    queries: int
    library: Library

    @classmethod
    def of(cls, directory: Path, size: int, queries: int) -> Made:
        """Under a directory that they share with no population of another library."""
        digest = hashlib.sha256(LIBRARY.read_bytes()).hexdigest()
        own = directory / f"{size}-{digest[:8]}"
        return cls(own, size, min(queries, size), Library.read(LIBRARY))

    @property
    def groves(self) -> range:
        return range(-(-self.size // GROVE))

    @property
    def query_seqs(self) -> Rows:
        """Drawn from all tasks, each of which is a query of its own neighbours."""
        drawn = np.random.default_rng(1).choice(self.size, self.queries, replace=False)
        return np.sort(drawn) + 1

    def rows(self, number: int) -> Matrix:
        """Of a grove; the last is cut off at the size."""
        return self.library.grove(number)[: self.size - number * GROVE]

    def query_rows(self) -> Matrix:
        places = self.query_seqs - 1
        groves = {number: self.rows(number) for number in np.unique(places // GROVE).tolist()}
        return np.stack([groves[at // GROVE][at % GROVE] for at in places.tolist()])

    def parts(self, rows: Matrix) -> Parts:
        return Parts.of(rows, self.library.epsilon, self.library.population)

    @property
    def space(self) -> Space:
        tasks = self.library
        return Space(tasks.vector.shape[1], tasks.discriminants.shape[2], tasks.epsilon)

    def index(self) -> PartsIndex:
        return PartsIndex(self.directory / "index", self.space, self.library.population)

    def truth(self) -> Rows:
        """(Q, K) seqs of the tasks nearest to each query, nearest first, without itself."""
        seqs, alike = [], []
        for number in self.groves:
            with np.load(self.truth_path(number)) as kept:
                seqs.append(kept["seqs"])
                alike.append(kept["alike"])
        every, likeness = np.concatenate(seqs, axis=1), np.concatenate(alike, axis=1)
        order = np.argsort(-likeness, axis=1, kind="stable")[:, :K]
        found: Rows = np.take_along_axis(every, order, 1)
        return found

    def truth_path(self, number: int) -> Path:
        return self.directory / "truth" / f"{number}.npz"


def build(made: Made, processes: int) -> float:
    """Makes what is not there yet; how many seconds that took."""
    started = time.perf_counter()
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        shares = [list(made.groves[i::processes]) for i in range(processes)]
        arguments = (made.directory.parent, made.size, made.queries)
        for shard in [pool.submit(_take_in, *arguments, share) for share in shares]:
            shard.result()
    index = made.index()
    if index.needs_fit:
        with index.shelf.writing():
            index.fit()
    return time.perf_counter() - started


def _take_in(directory: Path, size: int, queries: int, groves: Sequence[int]) -> None:
    """As one process beside others: numbers are worked out before it is its turn to write."""
    threadpool_limits(1)
    made = Made.of(directory, size, queries)
    index, seqs = made.index(), made.query_seqs
    asked = made.parts(made.query_rows())
    made.truth_path(0).parent.mkdir(parents=True, exist_ok=True)
    for number in groves:
        path = made.truth_path(number)
        if path.exists():
            continue
        parts = made.parts(made.rows(number))
        of_grove = np.arange(len(parts.label)) + number * GROVE + 1
        alike = asked.alike(parts, COMBINED)
        alike[seqs[:, None] == of_grove[None, :]] = -np.inf
        order = np.argsort(-alike, axis=1, kind="stable")[:, :K]
        columns = index.columns_of(parts)
        with index.shelf.writing():
            if not (index.seqs() == of_grove[0]).any():
                marks = np.zeros(len(of_grove), np.int64)
                index.shelf.append({"seqs": of_grove, "marks": marks, **columns})
        _save(path, of_grove[order], np.take_along_axis(alike, order, 1))


def _save(path: Path, seqs: Rows, alike: npt.NDArray[np.float64]) -> None:
    scratch = path.with_suffix(".tmp")
    with scratch.open("wb") as stream:
        np.savez(stream, seqs=seqs, alike=alike)
    scratch.replace(path)
