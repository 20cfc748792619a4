"""What is measured on distances: twins found, agreement with a taxonomy, closeness of changed sets.

A matrix of distances (T, T) has the halves A of T tasks as rows and their halves B as columns; the
twins stand on its diagonal. No image, no network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

Array = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

RESAMPLES = 2_000
PERMUTATIONS = 999
TOLD_P = 0.01
COVERED_ERRORS = 1.645
"""Standard errors either side that hold 0.90 of a normal distribution."""


@dataclass(frozen=True, slots=True)
class Retrieval:
    """`ranks` (T, 2): how many rivals are at least as near as the twin, from A to B and back."""

    ranks: Array

    @property
    def first(self) -> float:
        """Share of halves whose twin is nearer than every rival."""
        return float(np.mean(self.ranks == 0))

    @property
    def mean_rank(self) -> float:
        return float(np.mean(self.ranks))

    @property
    def first_interval(self) -> tuple[float, float]:
        """95 % bootstrap interval of `first` over tasks, both directions of one kept together."""
        return _interval((self.ranks == 0).mean(axis=1))

    def of(self, tasks: Flags) -> Retrieval:
        """For some tasks alone; their rivals stay the same."""
        return Retrieval(self.ranks[tasks])


@dataclass(frozen=True, slots=True)
class Agreement:
    """Rank correlation, and the share of random relabellings that give one at least as high."""

    rho: float
    p: float


@dataclass(frozen=True, slots=True)
class Stability:
    """Of changed sets against their originals, one entry a set.

    `shares`  distance to the original over the original's distance to its twin
    `found`   whether the original is nearer than every other set
    """

    shares: Array
    found: Flags


def find_twins(
    distances: Array, rivals: Flags | None = None, *, back: Array | None = None
) -> Retrieval:
    """Where the twin stands among the rivals of each half, in both directions.

    `back`    (T, T), rows A and columns B too, as seen from the halves B; default: the same
    `rivals`  (T, T), which tasks' other halves compete with the twin; default: all other tasks'.
              A rival at the same distance counts as nearer
    """
    back = distances if back is None else back
    others = ~np.eye(len(distances), dtype=bool)
    competing = others if rivals is None else others & rivals
    from_a = ((distances <= np.diag(distances)[:, None]) & competing).sum(axis=1)
    from_b = ((back <= np.diag(back)[None, :]) & competing).sum(axis=0)
    return Retrieval(np.stack([from_a, from_b], axis=1).astype(np.float64))


def weighed_elsewhere(
    parts: Sequence[tuple[Array, Array]],
    sources: Sequence[str],
    weights: Sequence[Sequence[float]],
) -> Retrieval:
    """Twins found by weighted sums of distances, weighted for each source as suits the others best.

    What a choice of weights by these very tasks would be worth on tasks of a source not seen yet.

    `parts`    (T, T) distances as seen from A and from B, of each part
    `sources`  (T,), at least two
    `weights`  those to choose from: one number a part, each set tried
    """
    there, back = (np.stack(seen) for seen in zip(*parts, strict=True))
    tried = [
        find_twins(np.tensordot(w, there, axes=1), back=np.tensordot(w, back, axes=1)).ranks
        for w in weights
    ]
    of = np.array(sources)
    ranks = np.empty_like(tried[0])
    for source in set(sources):
        found = [float(np.mean(each[of != source] == 0)) for each in tried]
        ranks[of == source] = tried[int(np.argmax(found))][of == source]
    return Retrieval(ranks)


def is_told(accuracy: float, n_images: int, n_classes: int) -> bool:
    """Whether so many held-out answers are right that guessing would hardly give as many.

    Binomial, one-sided, at TOLD_P. The accuracy is that of the penalty that it chose, and so
    slightly hopeful.
    """
    right = round(accuracy * n_images)
    test = binomtest(right, n_images, 1 / n_classes, alternative="greater")
    return bool(test.pvalue < TOLD_P)


def covered(one: Array, one_error: Array, other: Array, other_error: Array) -> float:
    """Share of filters, alive in both, whose logarithms lie within COVERED_ERRORS of each other.

    In standard errors of their difference: 0.90 of them should, if the errors are what they say.
    """
    alive = (one > 0) & (other > 0)
    a, b = one[alive], other[alive]
    error = np.hypot(one_error[alive] / a, other_error[alive] / b)
    return float(np.mean(np.abs(np.log(a / b)) <= COVERED_ERRORS * error))


def tree_distances(paths: Sequence[Sequence[str]]) -> Array:
    """(T, T) levels from a task's place up to the common ancestor of both; paths equally long."""
    depth = len(paths[0])
    result = np.empty((len(paths), len(paths)))
    for i, one in enumerate(paths):
        for j, other in enumerate(paths):
            shared = next((k for k in range(depth) if one[k] != other[k]), depth)
            result[i, j] = depth - shared
    return result


def agreement(
    distances: Array, tree: Array, *, permutations: int = PERMUTATIONS, seed: int = 0
) -> Agreement:
    """Spearman's rho of distances and tree distances over pairs of different tasks.

    A pair's distance is the mean of its two cross-half ones. The permutation test relabels whole
    tasks, as pairs that share a task are not independent (Mantel, 1967).
    """
    n = len(distances)
    above = np.triu_indices(n, 1)
    near = _ranks(((distances + distances.T) / 2)[above])
    levels = np.zeros((n, n))
    levels[above] = _ranks(tree[above])
    levels += levels.T
    found = _correlation(near, levels[above])
    generator = np.random.default_rng(seed)
    as_high = 0
    for _ in range(permutations):
        order = generator.permutation(n)
        as_high += _correlation(near, levels[np.ix_(order, order)][above]) >= found
    return Agreement(found, (1 + as_high) / (permutations + 1))


def spearman(x: Array, y: Array) -> float:
    """Rank correlation, ties at their mean rank; NaN where one of both is constant."""
    return _correlation(_ranks(x), _ranks(y))


def stability(to_originals: Array, places: Sequence[int], to_twins: Array) -> Stability:
    """How far a change moves sets.

    `to_originals`  (M, T) distances of M changed sets to the unchanged halves A of all T tasks
    `places`        M times the column of a set's own original
    `to_twins`      (M,) distances of those originals to their twins
    """
    rows = np.arange(len(places))
    own = to_originals[rows, places]
    others = to_originals.copy()
    others[rows, places] = np.inf
    shares = np.divide(own, to_twins, out=np.full_like(own, np.inf), where=to_twins > 0)
    return Stability(shares, own < others.min(axis=1))


def _interval(by_task: Array) -> tuple[float, float]:
    generator = np.random.default_rng(0)
    drawn = generator.integers(0, len(by_task), (RESAMPLES, len(by_task)))
    low, high = np.quantile(by_task[drawn].mean(axis=1), (0.025, 0.975))
    return float(low), float(high)


def _ranks(values: Array) -> Array:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    result: Array = (last - (counts - 1) / 2)[inverse]
    return result


def _correlation(x: Array, y: Array) -> float:
    x, y = x - x.mean(), y - y.mean()
    norm = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / norm) if norm else float("nan")
