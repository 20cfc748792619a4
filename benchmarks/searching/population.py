"""Made-up tasks in any number, as like real ones as the reference library shows them to be.

What is drawn is a task's log2 embeddings and discriminants, in groves of 500 tasks:

- A *fresh* task (one in four, and the first of each grove) mixes three of the library's, weighted
  by a Dirichlet distribution (0.6), and adds a residual in every filter. Its spread, filter by
  filter, is that of what the other library tasks leave unexplained of one by linear combination:
  label and domain parts keep full rank, and a million tasks do not lie in a hundred dimensions.
- Every other task *derives* from an earlier one of its grove by a residual of k times that spread,
  ln k normal (-0.3, 0.7): near twins, cousins, and strangers, without a scale of their own. Its
  discriminants move by half as much.
- Every task has the *sampling error* of its own images on top, filter by filter the median of what
  the library's tasks state, and a *scale* of its own with the library's spread of mean logs.
- Filters that are dead in the library's task that weighs most are dead.

Normal numbers come from a fixed pool, read from places drawn at random: to draw all of them would
take longer than all the rest. Groves are the same for a seed, in any order.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from app.embedding.parts import Population
from app.embedding.vector import RANK
from app.settings import shared_directory

Matrix = npt.NDArray[np.float32]

LIBRARY = shared_directory("models") / "reference" / "tf_efficientnet_lite0.npz"

GROVE = 500
FRESH = 0.25
MIXED = 3
CONCENTRATION = 0.6
LOG_STEP = (-0.3, 0.7)
LARGEST_ERROR = 4.0
"""Relative; what is stated beyond is no error any more."""
_POOL = 2**24


@dataclass(frozen=True, slots=True, eq=False)
class Library:
    """A reference library's tasks, T of them, as its file keeps them.

    `vector`, `domain`       (T, D) log2
    `discriminants`          (T, RANK, K)
    `dead`, `domain_dead`    (T, D)
    `label_spread`, `domain_spread`
                             (D,) of what the other tasks leave unexplained, log2
    `sampling`               (D,) of a task's own images, log2
    `scale`                  spread of the tasks' mean logs
    `tags`                   of each task: the medium first, the question last
    """

    vector: Matrix
    domain: Matrix
    discriminants: Matrix
    dead: npt.NDArray[np.bool_]
    domain_dead: npt.NDArray[np.bool_]
    label_spread: Matrix
    domain_spread: Matrix
    sampling: Matrix
    scale: float
    epsilon: float
    trivial: float
    population: Population
    tags: tuple[tuple[str, ...], ...]

    @classmethod
    def read(cls, path: Path) -> Library:
        with np.load(path, allow_pickle=False) as kept:
            epsilon, trivial = float(kept["epsilon"]), float(kept["trivial"])
            vector, domain, axes, errors = (
                kept[name].astype(np.float32)
                for name in ("vector", "domain", "discriminants", "sampling_error")
            )
            population = Population(kept["population_label"], kept["population_domain"])
            tags = tuple(tuple(task["tags"]) for task in json.loads(str(kept["tasks"])))
        floor = np.log2(epsilon) + 0.01
        dead, domain_dead = vector <= floor, domain <= floor
        alive_domain = _filled(domain, domain_dead)
        label = _filled(vector, dead) - alive_domain
        relative = np.where(dead, np.nan, np.minimum(errors, LARGEST_ERROR))
        usual = np.nan_to_num(_quietly(np.nanmedian, relative), nan=0.5)
        means = _quietly(np.nanmean, np.where(domain_dead, np.nan, domain), axis=1)
        return cls(
            vector,
            domain,
            axes,
            dead,
            domain_dead,
            _unexplained(label),
            _unexplained(alive_domain),
            np.log2(1 + usual).astype(np.float32),
            float(means.std()),
            epsilon,
            trivial,
            population,
            tags,
        )

    def rows(self) -> Matrix:
        """(T, 2 D + RANK K) its own tasks, as `parts.row_of` makes them."""
        return _rows(self.vector, self.domain, self.discriminants, self.epsilon)

    def grove(self, number: int, seed: int = 0) -> Matrix:
        """(GROVE, 2 D + RANK K) made-up tasks."""
        generator = np.random.default_rng((seed, number))
        noise = _Noise(generator)
        tasks, dim = len(self.vector), self.vector.shape[1]
        label, domain = np.empty((2, GROVE, dim), np.float32)
        axes = np.empty((GROVE, *self.discriminants.shape[1:]), np.float32)
        heaviest = np.empty(GROVE, np.int64)
        for i in range(GROVE):
            if i == 0 or generator.random() < FRESH:
                mixed = generator.choice(tasks, MIXED, replace=False)
                share = generator.dirichlet([CONCENTRATION] * MIXED).astype(np.float32)
                domain[i] = share @ self.domain[mixed]
                label[i] = share @ self.vector[mixed] - domain[i]
                axes[i] = _mixed(self.discriminants[mixed], share)
                heaviest[i] = mixed[share.argmax()]
                step = np.float32(1)
            else:
                parent = int(generator.integers(i))
                label[i], domain[i], axes[i] = label[parent], domain[parent], axes[parent]
                heaviest[i] = heaviest[parent]
                step = np.float32(np.exp(generator.normal(*LOG_STEP)))
                spread = step / 2 * axes[i].std()
                axes[i] += spread * noise(axes[i].size).reshape(axes[i].shape)
            label[i] += step * self.label_spread * noise(dim)
            domain[i] += step * self.domain_spread * noise(dim)
        domain += generator.normal(0, self.scale, (GROVE, 1)).astype(np.float32)
        for i in range(GROVE):
            label[i] += self.sampling * noise(dim)
        lowest = np.float32(np.log2(self.epsilon))
        vector = np.maximum(label + domain, lowest)
        vector[self.dead[heaviest]] = lowest
        np.maximum(domain, lowest, out=domain)
        domain[self.domain_dead[heaviest]] = lowest
        return _rows(vector, domain, axes, self.epsilon)


class _Noise:
    """Standard normal numbers from the pool."""

    _pool: Matrix | None = None

    def __init__(self, generator: np.random.Generator) -> None:
        self._generator = generator
        if _Noise._pool is None:
            _Noise._pool = np.random.default_rng(0).standard_normal(_POOL, dtype=np.float32)

    def __call__(self, count: int) -> Matrix:
        assert self._pool is not None
        start = int(self._generator.integers(_POOL - count))
        drawn: Matrix = self._pool[start : start + count]
        return drawn


def _mixed(axes: Matrix, share: Matrix) -> Matrix:
    """(RANK, K) principal axes of the weighted sum of Fisher matrices A^T A."""
    stacked = (np.sqrt(share)[:, None, None] * axes).reshape(-1, axes.shape[2])
    _, lengths, directions = np.linalg.svd(stacked, full_matrices=False)
    principal: Matrix = lengths[:RANK, None] * directions[:RANK]
    return principal


def _unexplained(logs: Matrix) -> Matrix:
    """(D,) standard deviation of each task less its regression on all others, with a ridge.

    With G the Gram matrix of centred tasks X and a ridge in it, that is G^-1 X over the diagonal of
    G^-1, row by row.
    """
    centred = (logs - logs.mean(axis=0)).astype(np.float64)
    gram = centred @ centred.T
    gram[np.diag_indices_from(gram)] += 1e-3 * np.trace(gram) / len(gram)
    inverse = np.linalg.inv(gram)
    residual = inverse @ centred / np.diag(inverse)[:, None]
    spread: Matrix = residual.std(axis=0).astype(np.float32)
    return spread


def _filled(logs: Matrix, dead: npt.NDArray[np.bool_]) -> Matrix:
    """Dead filters at the mean of the tasks that they live in."""
    means = np.nan_to_num(_quietly(np.nanmean, np.where(dead, np.nan, logs)))
    return np.where(dead, means, logs)


def _quietly(mean: Callable[..., Matrix], values: Matrix, axis: int = 0) -> Matrix:
    """NaN where there is nothing to average, without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return mean(values, axis=axis)


def _rows(vector: Matrix, domain: Matrix, axes: Matrix, epsilon: float) -> Matrix:
    lowest = np.float32(np.log2(epsilon) + 0.01)
    raw = [
        np.where(logs <= lowest, 0, np.maximum(np.exp2(logs) - np.float32(epsilon), 0))
        for logs in (vector, domain)
    ]
    return np.concatenate([*raw, axes.reshape(len(axes), -1)], axis=1).astype(np.float32)
