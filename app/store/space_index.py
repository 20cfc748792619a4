"""What search indexes of a space have in common: a shelf with a row for each embedding taken in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from app.embedding.distance import Compared
from app.store.shelf import Arrays, Column, Shelf
from app.store.vectors import Matrix, Rows

EXHAUSTIVE = 2_000
"""At most so many tasks are compared without being proposed first."""
GONE = -1
FAR = 100
"""Where all of a point's coordinates are this, no task is near: tasks lie some tens apart."""
_MANY = 10_000


def proposals(least: int, tasks: int) -> int:
    """How many of so many tasks are to be proposed: `least` of 10,000 or fewer.

    More lie near by the more there are. With this power of their number the ten nearest stay among
    those proposed in 99 cases of 100, up to a million (`benchmarks/search.py`).
    """
    return round(least * float(max(1.0, tasks / _MANY) ** 0.45))


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """`seqs`, nearest first; `exhaustive`: no task was left out unseen."""

    seqs: Rows
    exhaustive: bool


class SpaceIndex(ABC):
    """A cache of embeddings of one space: any of it can be lost, and is made anew.

    All processes of a machine that name the same directory share it. Whoever changes it holds
    `shelf.writing()`.
    """

    compares: Compared
    _blank: ClassVar[Mapping[str, int]]
    """By column, what stands where an embedding is gone: nothing of it, and near to nobody."""
    rounding: float
    """By how much the same embedding's numbers may differ from one time to another."""

    def __init__(self, directory: Path, columns: Mapping[str, Column]) -> None:
        self.shelf = Shelf(
            directory, {"seqs": Column("<i8", 1), "marks": Column("<i8", 1), **columns}
        )

    @property
    def needs_fit(self) -> bool:
        return False

    def seqs(self) -> Rows:
        """Of every row; GONE where its embedding is."""
        result: Rows = self.shelf.column("seqs")[:, 0]
        return result

    def marks(self) -> Rows:
        """Of every row what its embedding was made of: a seq alone may come to stand for another,
        in a database that was restored."""
        result: Rows = self.shelf.column("marks")[:, 0]
        return result

    def take_in(self, seqs: Sequence[int], marks: Rows, rows: Matrix, seen: int) -> None:
        """Embeddings that are not there yet, and the seq up to which all have been seen."""
        self.shelf.append(
            {"seqs": np.array(seqs, np.int64), "marks": marks, **self._columns_of(rows)},
            seen=max(seen, self.shelf.manifest.seen),
        )

    def remove(self, seqs: Sequence[int] | Rows, buried: int) -> None:
        """Embeddings that are gone, and the grave up to which all have been seen. A row keeps its
        place, with nothing of what stood there."""
        rows = np.flatnonzero(np.isin(self.seqs(), seqs)).tolist()
        if rows:
            for name, value in {**self._blank, "marks": 0, "seqs": GONE}.items():
                self.shelf.overwrite(name, rows, value)
        self.shelf.publish(buried=max(buried, self.shelf.manifest.buried))

    def fits(self, rows: Rows, embedded: Matrix) -> npt.NDArray[np.bool_]:
        """Whether what stands in those rows was made of these embeddings."""
        result = np.ones(len(rows), dtype=bool)
        for name, expected in self._columns_of(embedded).items():
            column = self.shelf.column(name)
            if not self.shelf.is_versioned(name):
                close = np.isclose(column[rows], expected, rtol=1e-2, atol=self.rounding)
                result &= close.all(axis=1)
        return result

    def fit(self) -> None:  # noqa: B027 - an index without axes has nothing to fit
        """Makes what serves as many rows as there are now."""

    @abstractmethod
    def points(self, seqs: Rows) -> Matrix:
        """As `search.Points` says, like `nearest`."""

    @abstractmethod
    def nearest(self, seqs: Rows, k: int, onto: Rows | None = None) -> Rows: ...

    def rows_of(self, seqs: Rows) -> Rows:
        """The row of each embedding; KeyError where one is not held."""
        held = self.seqs()
        order = np.argsort(held, kind="stable")
        at = np.searchsorted(held, seqs, sorter=order)
        rows: Rows = order[np.minimum(at, len(order) - 1)] if len(order) else at
        if not np.array_equal(held[rows], seqs):
            raise KeyError("an embedding that the index does not hold")
        return rows

    @abstractmethod
    def _columns_of(self, rows: Matrix) -> Arrays:
        """Of embeddings as the store gives them for what this index compares."""
