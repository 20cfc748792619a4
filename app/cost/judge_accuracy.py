"""Accuracy of every group told by a fit that never saw it, and orders of candidates beside it.

Intervals for group g are calibrated on deviations of every other group u under a fit that saw
neither g nor u; with many groups, neither g nor the tenth of them that u is in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

import numpy as np
from scipy.stats import norm

from app.cost.accuracy import AccuracyModel
from app.cost.baselines import (
    Baseline,
    largest_model,
    nearest_contest,
    outcome_prior,
    score_alone,
)
from app.cost.cells import Cells, Floats, Ints, from_logit, to_logit
from app.cost.conformal import COVERAGE, LEAST_GROUPS, calibrated_quantile, calibration_sets
from app.cost.estimator import deviations_of, forecast_groups
from app.cost.outcome_table import OutcomeTable
from app.cost.ranking_measures import (
    POINTS,
    Measures,
    random_regret,
    regret,
    regret_of,
    weighted_tau,
)

TRIES = 3
PRIOR = "outcome_prior"


def judge_accuracy(
    cells: Cells, tasks: tuple[str, ...], on_progress: Callable[[str, int, int], None]
) -> Measures:
    n = len(cells.value)
    mean, sd, half = np.zeros(n), np.ones(n), np.full(n, np.inf)
    adaptive: dict[int, float] = {}

    @cache
    def away(without: frozenset[int]) -> Floats:
        return deviations_of(cells, without)

    # Whoever is left out must leave enough.
    enough = len(cells.groups) > LEAST_GROUPS
    calibration = calibration_sets(len(cells.groups)) if enough else []
    groups = range(len(cells.groups))
    for group in groups:
        on_progress("accuracy", group, len(cells.groups))
        rows = np.flatnonzero(cells.group == group)
        model = AccuracyModel(cells, cells.group != group)
        mean[rows], sd[rows] = (x[rows] for x in forecast_groups(cells, model, {group}))
        for contest in np.unique(cells.contest[rows]):
            if not len(model.known_of(int(contest))):
                adaptive[int(contest)] = _adaptive_regret(cells, model, int(contest))
        scores, owners = [], []
        for fold in calibration:
            others = fold - {group}
            if others:
                inside = np.isin(cells.group, list(others))
                scores.append(away(fold | {group})[inside])
                owners.append(cells.group[inside])
        if scores:
            half[rows] = sd[rows] * calibrated_quantile(
                np.concatenate(scores), np.concatenate(owners), COVERAGE
            )
    inside = np.abs(to_logit(cells.value) - mean) <= half
    width = POINTS * (from_logit(mean + half) - from_logit(mean - half))
    error = POINTS * np.abs(from_logit(mean) - cells.value)
    calibrated = np.isfinite(half)

    def over_contests(of_contest: Callable[[Ints], float]) -> Floats:
        return _per_task(cells, tasks, lambda rows, _: of_contest(rows))

    return _order_measures(cells, tasks, mean) | {
        "regret_adaptive3": _per_task(
            cells, tasks, lambda _, contest: adaptive.get(contest, float("nan"))
        ),
        "accuracy_error": over_contests(lambda rows: float(np.median(error[rows]))),
        "coverage90": over_contests(
            lambda rows: float(inside[rows].mean()) if calibrated[rows].all() else float("nan")
        ),
        "width90": over_contests(
            lambda rows: float(np.median(width[rows])) if calibrated[rows].all() else float("nan")
        ),
    }


def _adaptive_regret(cells: Cells, model: AccuracyModel, contest: int) -> float:
    """Of the best of three candidates, each tried where, after those before it, most improvement is
    expected; the first is the strongest."""
    rows = np.flatnonzero(cells.contest == contest)
    tried: list[int] = []
    for _ in range(min(TRIES, len(rows))):
        forecast = model.forecast(rows, np.array(tried, dtype=np.int64))
        gain = forecast.mean.copy()
        if tried:
            sd = np.sqrt(np.maximum(np.diag(forecast.covariance), 1e-12))
            ahead = forecast.mean - cells.reach[tried].max()
            gain = ahead * norm.cdf(ahead / sd) + sd * norm.pdf(ahead / sd)
        gain[np.isin(rows, tried)] = -np.inf
        tried.append(int(rows[np.argmax(gain)]))
    return regret_of(cells.value[rows], np.isin(rows, tried))


def judge_orders(
    cells: Cells, tasks: tuple[str, ...], table: OutcomeTable, parameters: Mapping[str, int]
) -> dict[str, Measures]:
    orders: dict[str, Baseline] = {
        PRIOR: outcome_prior,
        "largest_model": largest_model(parameters),
        "nearest_task": nearest_contest,
    }
    orders |= {name: score_alone(column) for column, name in enumerate(table.score_names)}
    out = {
        "random": {
            "weighted_tau": _per_task(cells, tasks, lambda *_: 0.0),
            "regret_top1": _per_task(
                cells, tasks, lambda rows, _: random_regret(cells.value[rows], 1)
            ),
            "regret_top3": _per_task(
                cells, tasks, lambda rows, _: random_regret(cells.value[rows], TRIES)
            ),
        }
    }
    for name, baseline in orders.items():
        strength = np.zeros(len(cells.value))
        for group in range(len(cells.groups)):
            rows = cells.group == group
            strength[rows] = baseline(cells, ~rows)[rows]
        out[name] = _order_measures(cells, tasks, strength)
    for measures in out.values():  # what does not look at outcomes tries its first three
        measures["regret_adaptive3"] = measures["regret_top3"]
    return out


def _order_measures(cells: Cells, tasks: tuple[str, ...], strength: Floats) -> Measures:
    """nan where a strength is."""

    def of(measure: Callable[[Floats, Floats], float]) -> Floats:
        def of_contest(rows: Ints, _: int) -> float:
            here = strength[rows]
            return measure(cells.value[rows], here) if np.isfinite(here).all() else float("nan")

        return _per_task(cells, tasks, of_contest)

    return {
        "weighted_tau": of(weighted_tau),
        "regret_top1": of(lambda value, here: regret(value, here, 1)),
        "regret_top3": of(lambda value, here: regret(value, here, TRIES)),
    }


def _per_task(
    cells: Cells, tasks: tuple[str, ...], measure: Callable[[Ints, int], float]
) -> Floats:
    """Mean over a task's contests of two candidates or more; nan where it has none."""
    values: dict[str, list[float]] = {task: [] for task in tasks}
    for number, (task, _, _) in enumerate(cells.contests):
        rows = np.flatnonzero(cells.contest == number)
        if len(rows) > 1:
            values[task].append(measure(rows, number))
    return np.array([np.mean(v) if v else np.nan for v in values.values()])
