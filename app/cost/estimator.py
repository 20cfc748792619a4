"""What candidates will reach on a task, with intervals: the accuracy model and its calibration.

Calibrated on every task (or other group) under a fit that never saw it: how far outcomes lie from
forecasts, in the forecast's own deviations, bounds a new task's (conformal.py). With more than
MOST_SINGLE_GROUPS groups, a tenth of them is left out at a time.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from scipy.stats import norm

from app.cost.accuracy import AccuracyModel
from app.cost.cells import Cells, Floats, from_logit, make_cells, to_logit, with_contest
from app.cost.conformal import LEAST_GROUPS, calibrated_quantile
from app.cost.outcome_table import OutcomeTable
from app.cost.predictor import Interval

COVERAGE = 0.9
MOST_SINGLE_GROUPS = 30
FOLDS = 10
LEAST_TASKS = 2
"""Other tasks that a candidate's accuracy is told from, at least."""


class AccuracyEstimator:
    """Of one table of outcomes. `deviations`: half of a 90% interval in deviations of a forecast;
    inf where there are too few tasks to calibrate on."""

    def __init__(self, table: OutcomeTable) -> None:
        self._cells = make_cells(table, "task")
        self.n_tasks = len(self._cells.groups)
        self.deviations = self._calibrated() if self.n_tasks >= LEAST_GROUPS else float("inf")

    def forecast(
        self, task: str, recipe: str, metric: str, models: Sequence[str]
    ) -> dict[str, Interval]:
        """Of the candidates that were tried on LEAST_TASKS other tasks or more; given what is known
        of this one. Values of the metric, 0 to 1: the 90% interval about the median, or, where it
        cannot be calibrated, the one that the model itself believes."""
        tried = [model for model in models if self._tasks_tried(model, task) >= LEAST_TASKS]
        if not tried:
            return {}
        cells, rows = with_contest(self._cells, (task, recipe, metric), tried)
        model = AccuracyModel(cells, np.isfinite(cells.reach))
        found = model.forecast(rows, model.known_of(int(cells.contest[rows[0]])))
        sd = np.sqrt(np.maximum(np.diag(found.covariance), 1e-12))
        calibrated = np.isfinite(self.deviations)
        half = sd * (self.deviations if calibrated else norm.ppf((1 + COVERAGE) / 2))
        low, typical, high = (from_logit(found.mean + shift) for shift in (-half, 0 * half, half))
        return {
            name: Interval(
                float(low[i]),
                float(typical[i]),
                float(high[i]),
                "conformal_90" if calibrated else "uncalibrated_range",
            )
            for i, name in enumerate(tried)
        }

    def _tasks_tried(self, model: str, task: str) -> int:
        if model not in self._cells.models:
            return 0
        rows = self._cells.model == self._cells.models.index(model)
        tasks = {self._cells.contests[contest][0] for contest in self._cells.contest[rows]}
        return len(tasks - {task})

    def _calibrated(self) -> float:
        away, groups = [], []
        for fold in calibration_sets(self.n_tasks):
            inside = np.isin(self._cells.group, list(fold))
            away.append(deviations_of(self._cells, fold)[inside])
            groups.append(self._cells.group[inside])
        return calibrated_quantile(np.concatenate(away), np.concatenate(groups), COVERAGE)


def calibration_sets(n_groups: int) -> list[frozenset[int]]:
    """Groups that are left out together."""
    if n_groups <= MOST_SINGLE_GROUPS:
        return [frozenset({group}) for group in range(n_groups)]
    return [frozenset(range(fold, n_groups, FOLDS)) for fold in range(FOLDS)]


def deviations_of(cells: Cells, without: Collection[int]) -> Floats:
    """(n,) how far each value of these groups lies from a forecast that saw none of them."""
    model = AccuracyModel(cells, ~np.isin(cells.group, list(without)))
    mean, sd = forecast_groups(cells, model, without)
    return np.abs(to_logit(cells.value) - mean) / sd


def forecast_groups(
    cells: Cells, model: AccuracyModel, groups: Collection[int]
) -> tuple[Floats, Floats]:
    """Mean and deviation, logits, of the groups' cells; of others, 0 and 1."""
    mean, sd = np.zeros(len(cells.value)), np.ones(len(cells.value))
    judged = np.isin(cells.group, list(groups))
    for contest in np.unique(cells.contest[judged]):
        rows = np.flatnonzero(judged & (cells.contest == contest))
        forecast = model.forecast(rows, model.known_of(int(contest)))
        mean[rows] = forecast.mean
        sd[rows] = np.sqrt(np.maximum(np.diag(forecast.covariance), 1e-12))
    return mean, sd
