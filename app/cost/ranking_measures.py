"""How good an order of candidates was, once it is known what each reached."""

from __future__ import annotations

from math import comb

import numpy as np
from scipy.stats import weightedtau

from app.cost.cells import Floats, Ints, Mask

Measures = dict[str, Floats]
"""Per task (T,), nan where a task cannot be judged."""

POINTS = 100.0
"""Percentage points in a share."""


def weighted_tau(value: Floats, strength: Floats) -> float:
    """Kendall's tau with hyperbolic weights, by which the top counts most (S. Vigna, "A weighted
    correlation index for rankings with ties", WWW 2015); 0 where either side does not differ."""
    if np.ptp(value) == 0 or np.ptp(strength) == 0:
        return 0.0
    return float(weightedtau(value, strength).statistic)


def regret(value: Floats, strength: Floats, tries: int) -> float:
    """Percentage points between the best candidate and the best of the `tries` strongest."""
    first = np.argsort(-strength, kind="stable")[:tries]
    return regret_of(value, first)


def regret_of(value: Floats, tried: Ints | Mask) -> float:
    return POINTS * float(value.max() - value[tried].max())


def random_regret(value: Floats, tries: int) -> float:
    """Its expectation over all choices of `tries` candidates."""
    n = len(value)
    tries = min(tries, n)
    ordered = np.sort(value)
    # The k-th smallest is the best of a choice that takes the rest from the k - 1 below it.
    share = np.array([comb(k, tries - 1) for k in range(n)]) / comb(n, tries)
    return POINTS * float(value.max() - share @ ordered)
