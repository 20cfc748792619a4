"""Parts of embeddings as whole numbers of one byte, to compare one task with very many.

The label and domain parts of a task are unit vectors, and how alike two tasks are is the product of
theirs: a row of bytes and one scale stand for both parts. So do bytes and a scale for the
discriminants. A code is off by at most half a step, a step is 1/127 of the row's largest entry, and
what that does to a likeness averages out over thousands of filters: some 4e-4. So codes decide who
is looked at more closely, and distances that are told come from the embeddings themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from app.embedding.parts import Parts, Weights
from app.embedding.vector import RANK

Codes = npt.NDArray[np.int8]
Matrix = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]

LEVELS = 127
ERROR = 1.5e-3
"""No likeness by codes among the reference library's tasks is off by more; most are by a tenth."""
_AT_ONCE = 8  # rows of the default probe that a core's cache holds once they are floats


@dataclass(frozen=True, slots=True, eq=False)
class CodedParts:
    """The parts of M tasks as bytes; the arrays may be memory maps.

    `codes`   (M, 2 (D + 1) + RANK (K + 1)): label part, domain part, discriminants
    `scales`  (M, 2) float32, what a step of the first two counts, and one of the discriminants
    `width`   D + 1
    """

    codes: Codes
    scales: Matrix
    width: int

    @classmethod
    def of(cls, parts: Parts) -> CodedParts:
        count, width = parts.label.shape
        of_axes = parts.discriminants.shape[1] * parts.discriminants.shape[2]
        codes = np.empty((count, 2 * width + of_axes), np.int8)
        scales = np.empty((count, 2), np.float32)
        for start in range(0, count, _AT_ONCE):
            some = slice(start, start + _AT_ONCE)
            both = np.concatenate([parts.label[some], parts.domain[some]], axis=1, dtype=np.float32)
            codes[some, : 2 * width], scales[some, 0] = _coded(both)
            flat = parts.discriminants[some].reshape(len(both), -1)
            codes[some, 2 * width :], scales[some, 1] = _coded(flat.astype(np.float32))
        return cls(codes, scales, width)

    def __len__(self) -> int:
        return len(self.scales)

    def take(self, rows: Rows | slice) -> CodedParts:
        return CodedParts(self.codes[rows], self.scales[rows], self.width)

    def unpacked(self) -> tuple[Matrix, Matrix, Matrix]:
        """About what was coded: label (M, D + 1), domain (M, D + 1), axes (M, RANK, K + 1)."""
        both = 2 * self.width
        values = self.codes[:, :both] * self.scales[:, :1]
        axes = self.codes[:, both:] * self.scales[:, 1:]
        label, domain = values[:, : self.width], values[:, self.width :]
        return label, domain, axes.reshape(len(self), RANK, -1)

    def alike(self, query: Parts, weights: Weights, rows: Rows) -> Matrix:
        """(len(rows),) likenesses of the query, one task, to those of the tasks: see `Parts.alike`.

        A few rows at a time, so that what is read is still in the cache when it is multiplied.
        """
        width = self.width
        asked = np.concatenate([weights.label * query.label[0], weights.domain * query.domain[0]])
        counted = slice(0 if weights.label else width, 2 * width if weights.domain else width)
        asked = asked[counted].astype(np.float32)
        axes = query.discriminants[0].astype(np.float32).T  # (K + 1, RANK)
        result = np.zeros(len(rows), np.float32)
        for start in range(0, len(rows), _AT_ONCE):
            some = rows[start : start + _AT_ONCE]
            steps, axis_steps = self.scales[some].T
            found = result[start : start + _AT_ONCE]
            if len(asked):
                found += steps * (self.codes[some, counted].astype(np.float32) @ asked)
            if weights.discriminants:
                coded = self.codes[some, 2 * width :].reshape(-1, len(axes)).astype(np.float32)
                squares = (coded @ axes) ** 2
                overlaps = np.sqrt(squares.reshape(len(some), -1).sum(axis=1))
                found += weights.discriminants * axis_steps * overlaps
        return result


def _coded(values: Matrix) -> tuple[Codes, Matrix]:
    """(M, W) to codes of the same shape and (M,) steps; 0 where a row is."""
    steps: Matrix = np.maximum(values.max(axis=1), -values.min(axis=1)) / np.float32(LEVELS)
    whole = values / np.where(steps > 0, steps, 1)[:, None]
    return np.rint(whole, out=whole).astype(np.int8), steps
