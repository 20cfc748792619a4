"""Few numbers for a task that stand for its parts where the nearest of very many are looked for.

Each part has its own principal axes, so that one set of points serves every weighing of the parts:
a metric takes the coordinates of those it counts, times the roots of their weights. The root of an
inner product that compares discriminants is none itself; here the product stands for it (a sketch
of F = A^T A, random signs on both sides of it), as the order is what matters.

Each part is made unit again before it is weighed: how much of it lies outside the axes is mostly
noise, and would count against a task. Neither inner products of the coordinates as they are nor
unit lengths of all of them together find as many of the nearest.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
import numpy.typing as npt

from app.embedding.parts import Array, Parts, Weights

Matrix = npt.NDArray[np.float32]

SKETCH = 1_024
"""Numbers that stand for F before they are projected."""


@dataclass(frozen=True, slots=True)
class Dimensions:
    """Coordinates of each part."""

    label: int
    domain: int
    discriminants: int

    @property
    def total(self) -> int:
        return self.label + self.domain + self.discriminants


DIMENSIONS = {
    20_000: Dimensions(label=128, domain=48, discriminants=96),
    200_000: Dimensions(label=192, domain=64, discriminants=128),
}
"""By the most tasks that they tell apart: the fewer, the less a query takes to be projected."""
FINEST = Dimensions(label=512, domain=128, discriminants=256)
PROJECTED = 256
"""Coordinates of log-embeddings, beside the mean's."""
SAMPLE = 2_048
"""So many tasks show the axes: no more than a Gram matrix holds."""


@dataclass(frozen=True, slots=True, eq=False)
class Projection:
    """Principal axes of each part: (D + 1, d), (D + 1, d) and (SKETCH, d) float32.

    Of fewer sampled tasks than dimensions the axes left over are zero.
    """

    label: Matrix
    domain: Matrix
    discriminants: Matrix

    @classmethod
    def of(cls, label: Matrix, domain: Matrix, discriminants: Matrix, *, tasks: int) -> Projection:
        """For so many tasks, from a sample of at most SAMPLE of them: arrays as in `Parts`."""
        wanted = next((d for most, d in DIMENSIONS.items() if tasks <= most), FINEST)
        return cls(
            _principal(label, wanted.label),
            _principal(domain, wanted.domain),
            _principal(_sketches(discriminants), wanted.discriminants),
        )

    @property
    def dimensions(self) -> Dimensions:
        return Dimensions(self.label.shape[1], self.domain.shape[1], self.discriminants.shape[1])

    def points(self, label: Matrix, domain: Matrix, discriminants: Matrix) -> Matrix:
        """(M, d) coordinates of all parts, not weighed yet."""
        sketches = _sketches(discriminants)
        return np.concatenate(
            [label @ self.label, domain @ self.domain, sketches @ self.discriminants], axis=1
        )

    def points_of(self, parts: Parts) -> Matrix:
        arrays = (parts.label, parts.domain, parts.discriminants)
        return self.points(*(array.astype(np.float32) for array in arrays))


def weighed(points: Matrix, weights: Weights, dimensions: Dimensions) -> Matrix:
    """(M, d) points of a metric with those weights, all of one length, on coordinates it counts.

    `points`  (M, >= the dimensions' total)
    """
    pieces, start = [], 0
    for name in ("label", "domain", "discriminants"):
        stop = start + getattr(dimensions, name)
        if weight := getattr(weights, name):
            part = points[:, start:stop].astype(np.float32)
            pieces.append(unit(part) * np.float32(np.sqrt(weight)))
        start = stop
    return np.concatenate(pieces, axis=1)


def unit(points: Matrix) -> Matrix:
    """Rows of unit length; what is zero stays so."""
    norms = np.linalg.norm(points, axis=1, keepdims=True)
    result: Matrix = np.divide(points, norms, out=np.zeros_like(points), where=norms > 0)
    return result


def log_points(rows: Matrix, epsilon: float) -> Matrix:
    """(M, PROJECTED + 1) points of vectors (M, D); the last coordinate is the mean's."""
    logs: Matrix = np.log2(rows + np.float32(epsilon))
    mean = logs.mean(axis=1, keepdims=True)
    logs -= mean
    # In the middle of what it can be, where a column's float16 is finest.
    mean -= np.float32(np.log2(epsilon) / 2)
    return np.concatenate(
        [logs @ _random_axes(rows.shape[1]), mean * np.sqrt(rows.shape[1])], axis=1
    )


def _principal(sample: Matrix, count: int) -> Matrix:
    """(W, count) right singular vectors of (M, W), by the smaller Gram matrix."""
    values, vectors = np.linalg.eigh((sample @ sample.T).astype(np.float64))
    values, vectors = values[::-1][:count], vectors[:, ::-1][:, :count]
    kept = values > np.finfo(np.float32).eps * values[0]
    axes: Array = vectors[:, kept] / np.sqrt(values[kept])
    result = np.zeros((sample.shape[1], count), np.float32)
    result[:, : axes.shape[1]] = sample.T @ axes.astype(np.float32)
    return result


def _sketches(axes: Matrix) -> Matrix:
    """(M, SKETCH) whose inner products are about those of F, for (M, R, K + 1)."""
    left, right = _signs(axes.shape[2])
    narrow = axes.reshape(-1, axes.shape[2])
    products = (narrow @ left) * (narrow @ right)
    summed: Matrix = products.reshape(len(axes), -1, SKETCH).sum(axis=1)
    summed /= np.float32(np.sqrt(SKETCH))
    return summed


@cache
def _signs(responses: int) -> npt.NDArray[np.float32]:
    """(2, K, SKETCH), always the same."""
    drawn = np.random.default_rng(0).integers(0, 2, (2, responses, SKETCH), np.int8)
    return np.where(drawn, np.float32(1), np.float32(-1))


@lru_cache(maxsize=4)
def _random_axes(dimensions: int) -> Matrix:
    """Always the same for a length: all processes, and all that was kept, mean the same by it."""
    generator = np.random.default_rng(dimensions)
    drawn = generator.standard_normal((dimensions, PROJECTED), dtype=np.float32)
    return drawn / np.float32(np.sqrt(PROJECTED))
