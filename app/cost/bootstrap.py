"""Resampling tasks: what a figure could have been on others like them."""

from __future__ import annotations

import numpy as np

from app.cost.cells import Floats, Ints

RESAMPLES = 2000


def resamples(n: int, seed: int) -> Ints:
    """(RESAMPLES, n) indices of n tasks, drawn with replacement."""
    return np.random.default_rng(seed).integers(0, n, (RESAMPLES, n))


def middle(x: Floats) -> tuple[float, float]:
    """Bounds of the middle 95%."""
    low, high = np.quantile(x, [0.025, 0.975])
    return float(low), float(high)
