"""What an estimator is worth on a table of outcomes: every group judged by a fit that never saw it.

A task counts once, however many runs it has: measures are taken per task (the mean over its
contests), and summaries and bootstrap intervals are over tasks. Baselines and the estimator are
judged by the same lines. Logarithms are natural, regrets and widths in percentage points.

Intervals of accuracy are calibrated for group g on deviations of every other group u under a fit
that saw neither g nor u; with many groups, neither g nor the tenth of them that u is in. Intervals
of seconds take u's residuals under the fit without u.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import polars as pl
from scipy.stats import norm

from app.cost.accuracy import AccuracyModel
from app.cost.baselines import (
    Baseline,
    largest_model,
    nearest_contest,
    outcome_prior,
    score_alone,
)
from app.cost.cells import Cells, Floats, Ints, from_logit, make_cells, to_logit
from app.cost.conformal import LEAST_GROUPS, calibrated_quantile
from app.cost.duration import DurationModel, Durations, make_durations
from app.cost.estimator import COVERAGE, calibration_sets, deviations_of, forecast_groups
from app.cost.outcome_table import ENDED_WITHOUT_RESULT, OutcomeTable
from app.cost.ranking_measures import POINTS, random_regret, regret, regret_of, weighted_tau
from app.errors import InvalidRequest

TRIES = 3
SEEN_RUNS = 10
SEEN_REPEATS = 5
LEAST_LEFT = 5
"""Runs beyond the seen ones that a task must have to be judged on."""

RESAMPLES = 2000

PRIOR = "outcome_prior"
TIME_BASELINE = "per_model_median_time"

Measures = dict[str, Floats]
"""Per task (T,), nan where a task cannot be judged."""

Statistic = Callable[..., Any]
"""Of numpy: takes an axis."""

SUMMARIES: dict[str, tuple[str, Statistic]] = {
    "weighted_tau": ("weighted_tau", np.mean),
    "regret_top1_mean": ("regret_top1", np.mean),
    "regret_top1_median": ("regret_top1", np.median),
    "regret_top3_mean": ("regret_top3", np.mean),
    "regret_adaptive3_median": ("regret_adaptive3", np.median),
    "accuracy_medae": ("accuracy_error", np.median),
    "coverage90_mean": ("coverage90", np.mean),
    "coverage90_worst_task": ("coverage90", np.min),
    "width90_median": ("width90", np.median),
    "seconds_medale": ("seconds_error", np.median),
    "seconds_medale_after10": ("seconds_error_after10", np.median),
    "seconds_coverage90_mean": ("seconds_coverage90", np.mean),
    "seconds_factor90_median": ("seconds_factor90", np.median),
    "epochs_medale": ("epochs_error", np.median),
}
"""Key of the answer -> measure, and what is taken of it over tasks."""

_PAIRED_WITH_PRIOR = (
    "weighted_tau",
    "regret_top1_mean",
    "regret_top1_median",
    "regret_top3_mean",
    "regret_adaptive3_median",
)
_PAIRED_WITH_TIME = ("seconds_medale", "seconds_medale_after10", "epochs_medale")


@dataclass(frozen=True, slots=True)
class Difference:
    """Ours less a baseline's, with the 95% interval of a paired bootstrap over tasks."""

    baseline: str
    difference: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """`summary`, `baselines`: None where the table cannot tell; `intervals`: 95%, over tasks."""

    tasks: tuple[str, ...]
    summary: dict[str, float | None]
    intervals: dict[str, tuple[float, float] | None]
    baselines: dict[str, dict[str, float | None]]
    paired: dict[str, Difference | None]
    n_cells: int
    n_timed_runs: int
    n_candidates: int
    n_groups: int


def evaluate(
    table: OutcomeTable,
    *,
    group: str = "task",
    recipe: str | None = None,
    parameters: Mapping[str, int] | None = None,
    seed: int = 0,
    on_progress: Callable[[str, int, int], None] = lambda *_: None,
) -> Evaluation:
    """Leave one `group` out at a time. `parameters`: sizes of candidates, where known by name.

    Raises InvalidRequest where the column is unknown, or nothing is left to learn from.
    """
    table = _chosen(table, group, recipe)
    cells = make_cells(table, group)
    if len(cells.groups) < 2:
        raise InvalidRequest(
            "outcomes-one-group",
            f"All outcomes have the same {group}, {cells.groups[0]!r}: nothing is left to learn "
            "from when it is left out.",
            "Give outcomes of two or more, or another --group.",
        )
    tasks = tuple(sorted({contest[0] for contest in cells.contests}))
    generator = np.random.default_rng(seed)
    ours = _judge_accuracy(cells, tasks, on_progress)
    baselines = _judge_orders(cells, tasks, table, parameters or {})
    timed = table.runs.filter(
        pl.col("seconds").is_not_null() & ~pl.col("stop_reason").is_in(ENDED_WITHOUT_RESULT)
    )
    if not timed.is_empty():
        durations = make_durations(timed, group)
        names = timed["task"].to_numpy()
        of_task = [np.flatnonzero(names == task) for task in tasks]
        timings = _judge_durations(
            durations, timed["model"].to_numpy(), of_task, generator, on_progress
        )
        ours |= timings.pop("ours")
        baselines |= timings
    return Evaluation(
        tasks=tasks,
        summary=_summary(ours),
        intervals={key: _interval(key, ours, seed) for key in SUMMARIES},
        baselines={name: _summary(measures) for name, measures in baselines.items()},
        paired={
            key: _difference(key, ours, baselines.get(name, {}), name, seed)
            for keys, name in ((_PAIRED_WITH_PRIOR, PRIOR), (_PAIRED_WITH_TIME, TIME_BASELINE))
            for key in keys
        },
        n_cells=len(cells.value),
        n_timed_runs=len(timed),
        n_candidates=len(cells.models),
        n_groups=len(cells.groups),
    )


def _chosen(table: OutcomeTable, group: str, recipe: str | None) -> OutcomeTable:
    runs = table.runs
    if group not in runs.columns or runs[group].dtype != pl.String:
        known = [name for name in runs.columns if runs[name].dtype == pl.String]
        raise InvalidRequest(
            "group-unknown", f"{group!r} is no group.", f"Use one of {', '.join(known)}."
        )
    if recipe is None:
        return table
    rows = (runs["recipe"] == recipe).arg_true().to_list()
    if not rows:
        there = sorted(runs["recipe"].unique().to_list())
        raise InvalidRequest(
            "recipe-unknown",
            f"No outcome has the recipe {recipe!r}.",
            f"There are {', '.join(map(repr, there))}.",
        )
    numbers = tuple(table.numbers[row] for row in rows)
    return OutcomeTable(runs[rows], numbers, table.score_names, table.errors)


# --- accuracy


def _judge_accuracy(
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


def _judge_orders(
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


# --- time


def _judge_durations(
    d: Durations,
    model_names: object,
    of_task: list[Ints],
    generator: np.random.Generator,
    on_progress: Callable[[str, int, int], None],
) -> dict[str, Measures]:
    """Measures of `ours` and of the baselines."""
    names = np.asarray(model_names)
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

    def __init__(self, d: Durations, known: object, names: object) -> None:
        self._names = np.asarray(names)
        there = np.asarray(known)
        self._columns = []
        for y in (d.log_epochs, d.log_seconds):
            usable = there & np.isfinite(y)
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


# --- over tasks


def _summary(measures: Measures) -> dict[str, float | None]:
    return {key: _statistic(key, measures) for key in SUMMARIES}


def _statistic(key: str, measures: Measures) -> float | None:
    statistic, there = _of_tasks(key, measures)
    return float(statistic(there)) if len(there) else None


def _interval(key: str, measures: Measures, seed: int) -> tuple[float, float] | None:
    statistic, there = _of_tasks(key, measures)
    if len(there) < 2:
        return None
    return _middle(statistic(there[_resamples(len(there), seed)], axis=1))


def _of_tasks(key: str, measures: Measures) -> tuple[Statistic, Floats]:
    name, statistic = SUMMARIES[key]
    values = measures.get(name, np.array([]))
    return statistic, values[np.isfinite(values)]


def _difference(
    key: str, ours: Measures, theirs: Measures, name: str, seed: int
) -> Difference | None:
    measure, statistic = SUMMARIES[key]
    if measure not in ours or measure not in theirs:
        return None
    both = np.isfinite(ours[measure]) & np.isfinite(theirs[measure])
    if both.sum() < 2:
        return None
    mine, others = ours[measure][both], theirs[measure][both]
    draws = _resamples(len(mine), seed)
    low, high = _middle(statistic(mine[draws], axis=1) - statistic(others[draws], axis=1))
    return Difference(name, float(statistic(mine) - statistic(others)), low, high)


def _middle(x: Floats) -> tuple[float, float]:
    low, high = np.quantile(x, [0.025, 0.975])
    return float(low), float(high)


def _resamples(n: int, seed: int) -> Ints:
    return np.random.default_rng(seed).integers(0, n, (RESAMPLES, n))
