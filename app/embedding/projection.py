"""Few numbers for a task that stand for its parts where the nearest of very many are looked for.

Each part has its own principal axes, so that one set of points serves every weighing of the parts:
a metric takes the coordinates of those it counts, times the roots of their weights. The root of an
inner product that compares discriminants is none itself; here the product stands for it (a sketch
of F = A^T A, random signs on both sides of it), as the order is what matters.

Made unit again, points find more of the true neighbours than by their inner products or distances:
how much of a task lies outside the axes is mostly its noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from app.embedding.parts import Array, Parts, Weights

Matrix = npt.NDArray[np.float32]

SKETCH = 1_024
"""Numbers that stand for F before they are projected."""
DIMENSIONS = Weights(label=192, domain=64, discriminants=128)
"""Coordinates of each part."""
WIDTH = int(DIMENSIONS.label + DIMENSIONS.domain + DIMENSIONS.discriminants)
SAMPLE = 2_048
"""So many tasks show the axes: no more than a Gram matrix holds."""


@dataclass(frozen=True, slots=True, eq=False)
class Projection:
    """Principal axes of each part: (D + 1, d), (D + 1, d) and (SKETCH, d) float32.

    Of fewer tasks than dimensions the axes left over are zero.
    """

    label: Matrix
    domain: Matrix
    discriminants: Matrix

    @classmethod
    def of(cls, label: Matrix, domain: Matrix, discriminants: Matrix) -> Projection:
        """From a sample of at most SAMPLE tasks: arrays as in `Parts`."""
        return cls(
            _principal(label, int(DIMENSIONS.label)),
            _principal(domain, int(DIMENSIONS.domain)),
            _principal(_sketches(discriminants), int(DIMENSIONS.discriminants)),
        )

    def points(self, label: Matrix, domain: Matrix, discriminants: Matrix) -> Matrix:
        """(M, WIDTH) coordinates, not weighted yet."""
        sketches = _sketches(discriminants)
        return np.concatenate(
            [label @ self.label, domain @ self.domain, sketches @ self.discriminants], axis=1
        )

    def points_of(self, parts: Parts) -> Matrix:
        arrays = (parts.label, parts.domain, parts.discriminants)
        return self.points(*(array.astype(np.float32) for array in arrays))


def weighed(points: Matrix, weights: Weights) -> Matrix:
    """(M, d) unit points of a metric with those weights; only coordinates that it counts."""
    pieces, start = [], 0
    for name in ("label", "domain", "discriminants"):
        stop = start + int(getattr(DIMENSIONS, name))
        if weight := getattr(weights, name):
            pieces.append(points[:, start:stop].astype(np.float32) * np.float32(np.sqrt(weight)))
        start = stop
    return unit(np.concatenate(pieces, axis=1))


def unit(points: Matrix) -> Matrix:
    """Rows of unit length; what is zero stays so."""
    norms = np.linalg.norm(points, axis=1, keepdims=True)
    result: Matrix = np.divide(points, norms, out=np.zeros_like(points), where=norms > 0)
    return result


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
