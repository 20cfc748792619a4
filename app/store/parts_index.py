"""The search index by parts.

Two steps lead to the nearest tasks. Points in memory propose candidates, a few hundred numbers a
task (`embedding.projection`); their codes on disk, a byte a filter, say how alike they are
(`embedding.codes`). Few enough tasks are compared by their codes right away. Who asks takes the
distances that are told from the embeddings themselves.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from app.embedding.codes import CodedParts
from app.embedding.distance import COMBINED
from app.embedding.parts import Parts, Population, Weights
from app.embedding.projection import FINEST, SAMPLE, Dimensions, Projection, weighed
from app.embedding.vector import RANK
from app.files import whole
from app.store.embeddings import Space
from app.store.shelf import Arrays, Column
from app.store.space_index import EXHAUSTIVE, FAR, GONE, Found, SpaceIndex
from app.store.vectors import FaissIndex, Matrix, Rows, nearest
from app.telemetry import log_event

REFITTED = 8
"""Times as many tasks as showed the axes: then they are looked for anew."""
_AT_ONCE = 512  # rows
_PROPOSED = 3  # times as many as are wanted, for a map


@dataclass(frozen=True, slots=True, eq=False)
class Likened(Found):
    """By how alike they are to what was asked about, as far as codes tell."""

    likeness: Matrix


@dataclass(slots=True, eq=False)
class _Fitted:
    """What goes with one version of the shelf."""

    version: int
    projection: Projection | None
    searched: dict[Weights, FaissIndex] = field(default_factory=dict)
    growing: set[Weights] = field(default_factory=set)


class PartsIndex(SpaceIndex):
    compares = "parts"
    _blank: ClassVar = {"codes": 0, "scales": 0, "points": FAR}
    rounding = 1.0  # one step of a code

    def __init__(
        self,
        directory: Path,
        space: Space,
        population: Population,
        *,
        exhaustive: int = EXHAUSTIVE,
    ) -> None:
        super().__init__(
            directory,
            {
                "codes": Column("|i1", 2 * (space.dimensions + 1) + RANK * (space.responses + 1)),
                "scales": Column("<f4", 2),
                "points": Column("<f2", FINEST.total, versioned=True),
            },
        )
        self._epsilon = space.epsilon
        self._part_width = space.dimensions + 1
        self._population = population
        self._exhaustive = exhaustive
        self._mutex = threading.Lock()
        self._fitted = _Fitted(-1, None)

    @property
    def needs_fit(self) -> bool:
        """Whether there are so many tasks more than showed the axes, or no axes at all."""
        rows, fitted = len(self.shelf), self.shelf.manifest.fitted
        if rows <= self._exhaustive:
            return False
        return rows > REFITTED * fitted or self._current().projection is None

    @property
    def memory_per_task(self) -> int:
        """Bytes, of all metrics that were searched by proposals."""
        return sum(index.bytes_per_point for index in self._fitted.searched.values())

    def coded(self) -> CodedParts:
        """Memory maps of all rows, those that are gone among them."""
        column = self.shelf.column
        return CodedParts(column("codes"), column("scales"), self._part_width)

    def fit(self) -> None:
        """Finds the axes and moves all points."""
        rows, gone = len(self.shelf), self.seqs() == GONE
        projection = self._projection_for(np.flatnonzero(~gone))
        last = self.shelf.manifest.version
        self._write_projection(last + 1, projection)
        pieces = (
            np.where(
                gone[start:stop, np.newaxis],
                np.float16(FAR),
                _padded(projection.points(*self._unpacked(np.arange(start, stop)))),
            )
            for start, stop in _spans(rows)
        )
        self.shelf.replace("points", pieces, last + 1, fitted=rows)
        for path in self.shelf.directory.glob(f"*-{last}.fitted"):
            path.unlink(missing_ok=True)

    def search(self, query: Parts, weights: Weights, n: int, among: Rows | None = None) -> Likened:
        """The `n` tasks most like the query, one task; only those `among` (seqs), where given.

        Of equally alike tasks the older stands first.
        """
        seqs = self.seqs()
        rows = None if among is None else np.flatnonzero(np.isin(seqs, among))
        exhaustive = len(seqs if rows is None else rows) <= self._exhaustive
        if not exhaustive:
            rows = self._proposed(query, weights, n, rows)
        elif rows is None:
            rows = np.arange(len(seqs))
        rows = rows[seqs[rows] != GONE]
        # Rounded: the same codes at another place in a batch may differ in the last bits.
        self.shelf.expect("codes", rows)
        likeness = self.coded().alike(query, weights, rows).round(6)
        order = np.lexsort([seqs[rows], -likeness])[:n]
        return Likened(seqs[rows[order]], exhaustive, likeness[order])

    def points(self, seqs: Rows) -> Matrix:
        """By `combined`; of so few tasks that none are proposed, on axes of their own."""
        rows, projection = self.rows_of(seqs), self._current().projection
        if projection is not None:
            return weighed(self.shelf.column("points")[rows], COMBINED, projection.dimensions)
        projection = self._projection_for(rows)
        pieces = [
            projection.points(*self._unpacked(rows[start:stop]))
            for start, stop in _spans(len(rows))
        ]
        return weighed(np.concatenate(pieces), COMBINED, projection.dimensions)

    def nearest(self, seqs: Rows, k: int, onto: Rows | None = None) -> Rows:
        """By `combined` likeness of codes, proposed by points where there are many."""
        rows, itself = self.rows_of(seqs), onto is None
        others = rows if onto is None else self.rows_of(onto)
        k = min(k, len(others) - itself)
        proposed = None
        if len(others) > EXHAUSTIVE and self._current().projection is not None:
            points = self.points(seqs)
            among = points if onto is None else self.points(onto)
            proposed = nearest(points, among, _PROPOSED * k, itself=itself)
        coded, every = self.coded(), np.arange(len(others))
        result = np.empty((len(rows), k), np.int64)
        for i, row in enumerate(rows):
            near = every if proposed is None else proposed[i]
            self.shelf.expect("codes", others[near])
            arrays = coded.take(slice(row, row + 1)).unpacked()
            query = Parts(*(array.astype(np.float64) for array in arrays))
            likeness = coded.alike(query, COMBINED, others[near])
            order = near[np.argsort(-likeness, kind="stable")]
            result[i] = order[order != i][:k] if itself else order[:k]
        return result

    def _proposed(self, query: Parts, weights: Weights, n: int, among: Rows | None) -> Rows:
        fitted = self._current()
        if fitted.projection is None:  # too many tasks at once, or the file was lost
            return np.arange(len(self.shelf)) if among is None else among
        point = weighed(fitted.projection.points_of(query), weights, fitted.projection.dimensions)[
            0
        ]
        return self._searched(fitted, fitted.projection, weights).search(point, n, among)

    def _projection_for(self, rows: Rows) -> Projection:
        """Axes that a sample of the rows shows."""
        sample = np.random.default_rng(0).permutation(rows)[:SAMPLE]
        return Projection.of(*self._unpacked(np.sort(sample)), tasks=len(rows))

    def _unpacked(self, rows: Rows) -> tuple[Matrix, Matrix, Matrix]:
        self.shelf.expect("codes", rows)
        return self.coded().take(rows).unpacked()

    def _columns_of(self, rows: Matrix) -> Arrays:
        return self.columns_of(Parts.of(rows, self._epsilon, self._population))

    def columns_of(self, parts: Parts) -> Arrays:
        coded = CodedParts.of(parts)
        projection = self._current().projection
        points = np.zeros((len(coded), 0), np.float32)
        if projection is not None:
            points = projection.points_of(parts)
        return {"codes": coded.codes, "scales": coded.scales, "points": _padded(points)}

    def _current(self) -> _Fitted:
        with self._mutex:
            manifest = self.shelf.manifest
            if self._fitted.version != manifest.version:
                projection = self._read_projection(manifest.version) if manifest.fitted else None
                self._fitted = _Fitted(manifest.version, projection)
            return self._fitted

    def _searched(self, fitted: _Fitted, projection: Projection, weights: Weights) -> FaissIndex:
        """The points of a metric, with all that the shelf has."""
        points, dimensions = self.shelf.column("points"), projection.dimensions
        with self._mutex:
            index = fitted.searched.get(weights)
            if index is None:
                index = FaissIndex.read(self._lists_path(fitted, weights))
                if index is None or len(index) > len(points):
                    index = FaissIndex(weighed(points, weights, dimensions))
                    self._keep(index, fitted, weights)
                fitted.searched[weights] = index
            if len(index) < len(points):
                index.add(weighed(points[len(index) :], weights, dimensions))
            if index.outgrown and weights not in fitted.growing:
                fitted.growing.add(weights)
                threading.Thread(
                    target=self._grow,
                    args=(fitted, dimensions, weights),
                    name="index-growth",
                    daemon=True,
                ).start()
            return index

    def _grow(self, fitted: _Fitted, dimensions: Dimensions, weights: Weights) -> None:
        """Another index takes the place of one that was outgrown; until then that one serves."""
        index = FaissIndex(weighed(self.shelf.column("points"), weights, dimensions))
        self._keep(index, fitted, weights)
        with self._mutex:
            fitted.searched[weights] = index
            fitted.growing.discard(weights)

    def _keep(self, index: FaissIndex, fitted: _Fitted, weights: Weights) -> None:
        """For other processes and the next start, where it took long to make."""
        if index.has_lists:
            try:
                with whole(self._lists_path(fitted, weights)) as scratch:
                    index.write(scratch)
            except (OSError, RuntimeError) as error:  # faiss tells of a full disk by the latter
                log_event("index.not_kept", level=logging.WARNING, detail=str(error))

    def _lists_path(self, fitted: _Fitted, weights: Weights) -> Path:
        key = hashlib.sha256(repr(weights).encode()).hexdigest()[:8]
        return self.shelf.directory / f"lists-{key}-{fitted.version}.fitted"

    def _projection_path(self, version: int) -> Path:
        return self.shelf.directory / f"projection-{version}.fitted"

    def _write_projection(self, version: int, projection: Projection) -> None:
        with whole(self._projection_path(version)) as scratch, scratch.open("wb") as stream:
            np.savez(stream, **asdict(projection))

    def _read_projection(self, version: int) -> Projection | None:
        try:
            with np.load(self._projection_path(version), allow_pickle=False) as kept:
                return Projection(kept["label"], kept["domain"], kept["discriminants"])
        except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error):
            return None


def parts_key(population: Population) -> str:
    """The name of the index whose parts are centred on it."""
    means = hashlib.sha256(population.label.tobytes() + population.domain.tobytes())
    return f"parts-{means.hexdigest()[:16]}"


def _spans(count: int) -> Iterator[tuple[int, int]]:
    for start in range(0, count, _AT_ONCE):
        yield start, min(start + _AT_ONCE, count)


def _padded(points: Matrix) -> npt.NDArray[np.float16]:
    """As wide as the column, whatever the dimensions."""
    result = np.zeros((len(points), FINEST.total), np.float16)
    result[:, : points.shape[1]] = points
    return result
