"""Intervals whose exchangeable unit is the group, never the row.

Rows of one task share what is odd about it: a hundred of them are one piece of evidence of how far
a new task may lie. Each calibration group therefore has the weight 1/(K + 1), shared by its rows,
and the new group's own 1/(K + 1) lies at infinity (Y. Lee, R. F. Barber, R. Willett, "Distribution-
free inference with hierarchical data", 2023). Covers at least `level` of a new group's rows on
average; K < level / (1 - level) groups, nine for 90%, give no finite bound.
"""

from __future__ import annotations

import numpy as np

from app.cost.cells import Floats, Ints

COVERAGE = 0.9
LEAST_GROUPS = 9
"""Of a 90% interval."""

LEVELS = 101
MOST_SINGLE_GROUPS = 30
FOLDS = 10


def calibration_sets(n_groups: int) -> list[frozenset[int]]:
    """Groups that are left out together: each alone, or where there are many, a tenth of them."""
    if n_groups <= MOST_SINGLE_GROUPS:
        return [frozenset({group}) for group in range(n_groups)]
    return [frozenset(range(fold, n_groups, FOLDS)) for fold in range(FOLDS)]


def grouped_quantile(scores: Floats, group: Ints, level: float) -> float:
    """The least s with weighted share {scores <= s} >= level; inf where there are too few groups.

    `scores` (n,) nonconformity of each row, `group` (n,) its group.
    """
    if not len(scores):
        return float("inf")
    numbers, inverse, counts = np.unique(group, return_inverse=True, return_counts=True)
    weight = 1 / ((len(numbers) + 1) * counts[inverse])
    order = np.argsort(scores, kind="stable")
    reached = np.cumsum(weight[order]) >= level - 1e-12
    return float(scores[order][np.argmax(reached)]) if reached.any() else float("inf")


def calibrated_quantile(scores: Floats, group: Ints, level: float) -> float:
    """The least quantile that covers `level` of a group it does not know, judged on the groups
    there are: each by the quantile of the others. Never above `grouped_quantile`, whose guarantee
    holds for the worst population and overshoots by up to 1 / (K + 1) on others; inf where that is.
    """
    guaranteed = grouped_quantile(scores, group, level)
    if not np.isfinite(guaranteed):
        return guaranteed
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    _, owner, counts = np.unique(group[order], return_inverse=True, return_counts=True)
    weight = 1 / counts[owner]
    steps = np.linspace(level, 1.0, LEVELS)
    covered = np.zeros(LEVELS)
    for left_out, count in enumerate(counts):
        mine = owner == left_out
        others = _quantiles(ordered, np.where(mine, 0.0, weight), steps)
        covered += np.searchsorted(ordered[mine], others, side="right") / count
    enough = covered / len(counts) >= level
    step = steps[np.argmax(enough)] if enough.any() else 1.0
    return min(float(_quantiles(ordered, weight, np.array([step]))[0]), guaranteed)


def _quantiles(ordered: Floats, weight: Floats, levels: Floats) -> Floats:
    """Of scores in ascending order, each with its weight."""
    reached = np.cumsum(weight)
    index = np.searchsorted(reached / reached[-1], levels - 1e-9)
    return np.asarray(ordered[np.minimum(index, len(ordered) - 1)])
