"""Time of every group's runs told by a fit that never saw it, and by candidates' medians.

Intervals for group g take the residuals of every other group under the fit without that one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.cost.cells import Floats, Ints, Mask
from app.cost.conformal import COVERAGE, calibrated_quantile
from app.cost.duration import DurationModel, Durations
from app.cost.ranking_measures import Measures

TIME_BASELINE = "per_model_median_time"
SEEN_RUNS = 10
SEEN_REPEATS = 5
LEAST_LEFT = 5
"""Runs beyond the seen ones that a task must have to be judged on."""

Names = NDArray[Any]
"""Of candidates, text, one a run."""


def judge_durations(
    d: Durations,
    names: Names,
    of_task: list[Ints],
    generator: np.random.Generator,
    on_progress: Callable[[str, int, int], None],
) -> dict[str, Measures]:
    """Measures of `ours` and of the baselines."""
    n = len(d.group)
    n_groups = int(d.group.max()) + 1
    forecasts: dict[str, list[Floats]] = {
        name: [np.full(n, np.nan), np.full(n, np.nan)]
        for name in ("ours", TIME_BASELINE, "constant_time")
    }
    after: dict[str, list[list[float]]] = {name: [[] for _ in of_task] for name in forecasts}
    for group in range(n_groups):
        on_progress("time", group, n_groups)
        known = d.group != group
        if not known.any():
            continue
        model = DurationModel(d, known)
        per_model = _MedianTime(d, known, names)
        constant = _MedianTime(d, known, np.full(n, ""))
        for number, task_rows in enumerate(of_task):
            rows = task_rows[d.group[task_rows] == group]
            if not len(rows):
                continue
            elsewhere = task_rows[d.group[task_rows] != group]
            timing = model.forecast(rows, elsewhere)
            forecasts["ours"][0][rows] = timing.epochs
            forecasts["ours"][1][rows] = timing.seconds
            for name, median in ((TIME_BASELINE, per_model), ("constant_time", constant)):
                forecasts[name][0][rows], forecasts[name][1][rows] = median.forecast(rows)
            if len(elsewhere) or len(rows) < SEEN_RUNS + LEAST_LEFT:
                continue
            for _ in range(SEEN_REPEATS):
                mixed = generator.permutation(rows)
                seen, left = mixed[:SEEN_RUNS], mixed[SEEN_RUNS:]
                truth = d.log_seconds[left]
                adapted = model.forecast(left, seen).seconds
                after["ours"][number].append(float(np.median(np.abs(adapted - truth))))
                for name, median in ((TIME_BASELINE, per_model), ("constant_time", constant)):
                    moved = np.median(d.log_seconds[seen] - median.forecast(seen)[1])
                    error = np.abs(median.forecast(left)[1] + moved - truth)
                    after[name][number].append(float(np.median(error)))
    out: dict[str, Measures] = {}
    for name, (epochs, seconds) in forecasts.items():
        missed = epochs - d.log_epochs
        missed = np.where(d.capped, np.maximum(-missed, 0), np.abs(missed))
        out[name] = {
            "seconds_error": _medians(np.abs(seconds - d.log_seconds), of_task),
            "epochs_error": _medians(missed, of_task),
            "seconds_error_after10": np.array([np.mean(v) if v else np.nan for v in after[name]]),
        }
    out["ours"] |= _seconds_intervals(d, forecasts["ours"][1], of_task)
    return out


def _seconds_intervals(d: Durations, seconds: Floats, of_task: list[Ints]) -> Measures:
    error = np.abs(seconds - d.log_seconds)
    half = np.full(len(error), np.inf)
    usable = np.isfinite(error)
    for group in np.unique(d.group):
        others = usable & (d.group != group)
        half[d.group == group] = calibrated_quantile(error[others], d.group[others], COVERAGE)
    inside = np.where(np.isfinite(half) & usable, error <= half, np.nan)
    with np.errstate(over="ignore"):
        factor = np.where(np.isfinite(half), np.exp(half), np.nan)
    return {
        "seconds_coverage90": np.array([_mean(inside[rows]) for rows in of_task]),
        "seconds_factor90": _medians(factor, of_task),
    }


class _MedianTime:
    """The median of a candidate's runs; of all runs, where it has none."""

    def __init__(self, d: Durations, known: Mask, names: Names) -> None:
        self._names = names
        self._columns = []
        for y in (d.log_epochs, d.log_seconds):
            usable = known & np.isfinite(y)
            everything = float(np.median(y[usable])) if usable.any() else float("nan")
            of_model = {
                name: float(np.median(y[usable & (self._names == name)]))
                for name in np.unique(self._names[usable])
            }
            self._columns.append((of_model, everything))

    def forecast(self, rows: Ints) -> tuple[Floats, Floats]:
        epochs, seconds = (
            np.array([of_model.get(name, everything) for name in self._names[rows]])
            for of_model, everything in self._columns
        )
        return epochs, seconds


def _medians(x: Floats, of_task: list[Ints]) -> Floats:
    out = np.full(len(of_task), np.nan)
    for number, rows in enumerate(of_task):
        there = x[rows][np.isfinite(x[rows])]
        if len(there):
            out[number] = np.median(there)
    return out


def _mean(x: Floats) -> float:
    there = x[np.isfinite(x)]
    return float(there.mean()) if len(there) else float("nan")
