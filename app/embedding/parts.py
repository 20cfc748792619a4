"""The parts of an embedding that tasks compare by, and how alike those of two tasks are.

With e + eps for each entry, the domain part is log2 of the Fisher of a task's images with no
question asked, the label part what log2 of the task's Fisher adds to that. Each is centred on its
own mean over live filters and on a population's, and two compare by correlation.

The discriminants A (R, K) are the principal axes of a Fisher information F = A^T A of the probe's
responses. Two compare by |A B^T|, the root of the inner product of F and G, over the roots of their
norms: 1 where the answers lie along the same responses, 0 where along others altogether.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from app.embedding.vector import RANK, TaskEmbedding
from app.errors import InvalidRequest

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[np.float32] | Array

_CHUNK_ENTRIES = 400_000  # of rows: a few megabytes, which stay in a core's cache


@dataclass(frozen=True, slots=True)
class Weights:
    """What each part's likeness counts; they add up to 1."""

    label: float = 0.0
    domain: float = 0.0
    discriminants: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Population:
    """Means over many tasks of a space of their centred parts: what all tasks have in common.

    `label`, `domain`  (D,) float32, in log2 units
    """

    label: npt.NDArray[np.float32]
    domain: npt.NDArray[np.float32]

    @classmethod
    def of(cls, rows: Rows, epsilon: float) -> Population:
        """From tasks (M, 2 D), vector and domain; a filter's mean is over those it lives in."""
        means = []
        vector, domain = np.split(np.asarray(rows, np.float64), 2, axis=1)
        for values, alive in _centred(vector, domain, epsilon):
            counts = np.maximum(alive.sum(axis=0), 1)
            means.append((values.sum(axis=0) / counts).astype(np.float32))
        return cls(*means)


def row_of(embedding: TaskEmbedding) -> npt.NDArray[np.float32]:
    """(2 D + R K,): vector, domain and discriminants one after another."""
    return np.concatenate(
        [embedding.vector, embedding.domain, embedding.discriminants.ravel()], dtype=np.float32
    )


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """The parts of M tasks, ready to compare.

    Filters that are dead in a task stand where the population does, at 0. A part that stands there
    with all its filters is like nothing but its like: what each part has one more entry for.

    `label`, `domain`  (M, D + 1), of unit length
    `discriminants`    (M, R, K + 1), their F of unit norm
    `lengths`          (M, 2), what label and domain were long before, in log2 units; None of parts
                       that were kept as they are compared
    """

    label: Array
    domain: Array
    discriminants: Array
    lengths: Array | None = None

    @classmethod
    def of(cls, rows: Rows, epsilon: float, population: Population | None) -> Parts:
        """Of rows (M, 2 D + R K) as `row_of` makes them.

        Raises InvalidRequest without a population, or where the rows are not of its space.
        """
        if population is None:
            raise InvalidRequest(
                "population-unknown",
                "Parts of embeddings need a population of tasks of their space to be centred on.",
                "Build the reference library of this probe, or use a metric on vectors: cosine.",
            )
        dim = len(population.label)
        responses, left = divmod(rows.shape[1] - 2 * dim, RANK)
        if responses < 1 or left:
            raise InvalidRequest(
                "length-mismatch",
                f"Rows of {rows.shape[1]} numbers are not vector, domain and discriminants of a "
                f"space of {dim} filters.",
                "Embed the tasks again with this version.",
            )
        pieces = [cls._prepared(rows[part], epsilon, population) for part in chunks(rows)]
        return cls(*(np.concatenate([getattr(p, f.name) for p in pieces]) for f in fields(cls)))

    @classmethod
    def _prepared(cls, rows: Rows, epsilon: float, population: Population) -> Parts:
        dim = len(population.label)
        vector, domain, axes = rows[:, :dim], rows[:, dim : 2 * dim], rows[:, 2 * dim :]
        means = (population.label, population.domain)
        (label, of_label), (domain, of_domain) = (
            _unit(_less(part, mean, alive))
            for (part, alive), mean in zip(_centred(vector, domain, epsilon), means, strict=True)
        )
        axes = axes.astype(np.float64).reshape(len(rows), RANK, -1)
        size = np.sqrt(np.linalg.norm(axes @ axes.transpose(0, 2, 1), axis=(1, 2)))[:, None, None]
        axes = np.divide(axes, size, out=np.zeros_like(axes), where=size > 0)
        none = np.zeros((*axes.shape[:2], 1))
        none[:, 0] = size[:, 0] == 0
        lengths = np.stack([of_label, of_domain], axis=1)
        return cls(label, domain, np.concatenate([axes, none], axis=2), lengths)

    def alike(self, other: Parts, weights: Weights) -> Array:
        """(M, M') weighted likenesses, 1 of what is the same."""
        result = np.zeros((len(self.label), len(other.label)))
        if weights.label:
            result += weights.label * (self.label @ other.label.T)
        if weights.domain:
            result += weights.domain * (self.domain @ other.domain.T)
        if weights.discriminants:
            result += weights.discriminants * _overlaps(self.discriminants, other.discriminants)
        return result


def chunks(rows: Rows) -> Iterator[slice]:
    """So many rows at a time that memory stays bounded; one chunk at least."""
    step = max(1, _CHUNK_ENTRIES // max(1, rows.shape[1]))
    for start in range(0, max(1, len(rows)), step):
        yield slice(start, start + step)


def _overlaps(a: Array, b: Array) -> Array:
    """(M, M') Frobenius norms of A B^T, for (M, R, K) and (M', R, K)."""
    result = np.empty((len(a), len(b)))
    flat = b.reshape(-1, b.shape[2])
    step = max(1, _CHUNK_ENTRIES // max(1, RANK * len(flat)))
    for start in range(0, len(a), step):
        part = a[start : start + step]
        products = part.reshape(-1, a.shape[2]) @ flat.T
        squares = (products**2).reshape(len(part), RANK, len(b), RANK).sum(axis=(1, 3))
        result[start : start + step] = np.sqrt(squares)
    return result


def _unit(part: Array) -> tuple[Array, Array]:
    """(M, D) to (M, D + 1) of unit length, and what it was; zero has it in the last entry."""
    norms = np.sqrt(np.einsum("md,md->m", part, part))
    unit = np.divide(part, norms[:, None], out=part, where=norms[:, None] > 0)
    return np.concatenate([unit, norms[:, None] == 0], axis=1), norms


def _centred(
    vector: Rows, domain: Rows, epsilon: float
) -> list[tuple[Array, npt.NDArray[np.bool_]]]:
    """Label and domain part (M, D) in log2, less their own mean over live filters; which are."""
    of_images = np.log2(np.add(domain, epsilon, dtype=np.float64))
    asked = np.log2(np.add(vector, epsilon, dtype=np.float64))
    asked -= of_images
    lives = domain > 0
    found = []
    for values, alive in ((asked, lives & (vector > 0)), (of_images, lives)):
        values *= alive
        counts = np.maximum(alive.sum(axis=1, keepdims=True), 1)
        found.append((_less(values, values.sum(axis=1, keepdims=True) / counts, alive), alive))
    return found


def _less(values: Array, mean: Rows, alive: npt.NDArray[np.bool_]) -> Array:
    """In place; filters that are dead stay at 0."""
    values -= mean
    values *= alive
    return values
