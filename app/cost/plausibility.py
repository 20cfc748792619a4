"""Which numbers stand so far from their like that somebody should look before they are believed."""

from __future__ import annotations

import numpy as np

from app.cost.cells import Floats, Ints, Mask

LEAST_LIKE = 8
"""Of fewer, nothing is far."""

MOST_DEVIATIONS = 6.0
LEAST_DEVIATION = 0.1
DEVIATION_OF_MEDIAN = 1.4826
"""Standard deviations of a normal in its median absolute deviation."""


def implausible(x: Floats, group: Ints) -> Mask:
    """(n,) whether a number is more than six robust deviations from the median of its group.

    `x` on a scale where differences mean the same everywhere (logarithm, logit); nan is of no
    group and never far.
    """
    far = np.zeros(len(x), dtype=bool)
    for number in np.unique(group):
        rows = np.flatnonzero((group == number) & np.isfinite(x))
        if len(rows) > LEAST_LIKE:
            away = np.abs(x[rows] - np.median(x[rows]))
            deviation = max(DEVIATION_OF_MEDIAN * float(np.median(away)), LEAST_DEVIATION)
            far[rows] = away > MOST_DEVIATIONS * deviation
    return far
