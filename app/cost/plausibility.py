"""Which numbers stand so far from their like that somebody should look before they are believed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from app.cost.cells import Floats, Ints, Mask, to_logit

LEAST_LIKE = 8
"""Of fewer, nothing is far."""

MOST_DEVIATIONS = 6.0
LEAST_DEVIATION = 0.1
DEVIATION_OF_MEDIAN = 1.4826
"""Standard deviations of a normal in its median absolute deviation."""


def implausible_runs(runs: Sequence[Mapping[str, Any]]) -> tuple[Mask, Mask]:
    """(n,) twice, by the columns of evidence (evidence.py), None where one is not known: whose
    seconds are far from those of the candidate on the device under the recipe, and whose value from
    those on the task by the metric.

    Seconds are taken over what was counted for the steps that were made, where somebody counted: a
    run of few images, or one that patience ended early, is short and yet as it should be.
    """
    seconds, counted, values = (
        np.array([run.get(name) for run in runs], dtype=np.float64)  # None becomes nan
        for name in ("seconds", "counted_seconds", "value")
    )
    is_counted = np.isfinite(counted)
    pace = np.log(seconds) - np.where(is_counted, np.log(counted), 0.0)
    return (
        implausible(pace, _grouped(runs, ("model", "recipe", "device"), is_counted)),
        implausible(to_logit(values), _grouped(runs, ("task", "metric"))),
    )


def _grouped(
    runs: Sequence[Mapping[str, Any]], names: Sequence[str], apart: Mask | None = None
) -> Ints:
    """By these names; `apart` (n,) what else tells groups from each other."""
    also = [False] * len(runs) if apart is None else apart.tolist()
    keys = [(*(run[name] for name in names), more) for run, more in zip(runs, also, strict=True)]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return np.array([numbers[key] for key in keys], dtype=np.int64)


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
