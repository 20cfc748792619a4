"""Whether intervals still cover what they said: forecasts kept from before their runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from scipy.stats import t as student

from app.cost.conformal import COVERAGE, LEAST_GROUPS

DOUBT = 0.05
ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Tracked:
    """Of outcomes whose forecast had a calibrated interval: the share inside, task by task.

    `coverage`     mean over tasks
    `coverage_low`, `coverage_high`  its 90% interval, tasks being the unit; None of one task
    `drifting`     whether it is below what was stated by more than chance, on nine tasks or more
    """

    n_outcomes: int
    n_tasks: int
    coverage: float
    coverage_low: float | None
    coverage_high: float | None
    drifting: bool


def tracked(tasks: Sequence[str], inside: Sequence[bool]) -> Tracked | None:
    """`tasks`, `inside` (n,): whose, and whether the outcome was. None without any."""
    if not tasks:
        return None
    names, task = np.unique(tasks, return_inverse=True)
    hits = np.bincount(task, np.asarray(inside, dtype=np.float64), len(names))
    shares = hits / np.bincount(task)
    mean = float(shares.mean())
    low = high = None
    if len(names) > 1:
        error = float(shares.std(ddof=1)) / sqrt(len(names))
        half = float(student.ppf(1 - DOUBT, len(names) - 1)) * error
        low, high = max(mean - half, 0.0), min(mean + half, 1.0)
    return Tracked(
        n_outcomes=len(tasks),
        n_tasks=len(names),
        coverage=mean,
        coverage_low=low,
        coverage_high=high,
        drifting=len(names) >= LEAST_GROUPS and high is not None and high < COVERAGE - ROUNDING,
    )
