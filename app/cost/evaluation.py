"""What an estimator is worth on a table of outcomes: every group judged by a fit that never saw it.

A task counts once, however many runs it has: measures are taken per task (the mean over its
contests), and summaries and bootstrap intervals are over tasks. Baselines and the estimator are
judged by the same lines. Logarithms are natural, regrets and widths in percentage points.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from app.cost.bootstrap import middle, resamples
from app.cost.cells import Floats, make_cells
from app.cost.duration import make_durations
from app.cost.judge_accuracy import PRIOR, judge_accuracy, judge_orders
from app.cost.judge_durations import TIME_BASELINE, judge_durations
from app.cost.outcome_table import ENDED_WITHOUT_RESULT, OutcomeTable
from app.cost.ranking_measures import Measures
from app.errors import InvalidRequest

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
    ours = judge_accuracy(cells, tasks, on_progress)
    baselines = judge_orders(cells, tasks, table, parameters or {})
    timed = table.runs.filter(
        pl.col("seconds").is_not_null() & ~pl.col("stop_reason").is_in(ENDED_WITHOUT_RESULT)
    )
    if not timed.is_empty():
        durations = make_durations(timed, group)
        names = timed["task"].to_numpy()
        of_task = [np.flatnonzero(names == task) for task in tasks]
        timings = judge_durations(
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
    return OutcomeTable(runs[rows], numbers, table.score_names, table.errors, table.names)


def _summary(measures: Measures) -> dict[str, float | None]:
    return {key: _statistic(key, measures) for key in SUMMARIES}


def _statistic(key: str, measures: Measures) -> float | None:
    statistic, there = _of_tasks(key, measures)
    return float(statistic(there)) if len(there) else None


def _interval(key: str, measures: Measures, seed: int) -> tuple[float, float] | None:
    statistic, there = _of_tasks(key, measures)
    if len(there) < 2:
        return None
    return middle(statistic(there[resamples(len(there), seed)], axis=1))


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
    draws = resamples(len(mine), seed)
    low, high = middle(statistic(mine[draws], axis=1) - statistic(others[draws], axis=1))
    return Difference(name, float(statistic(mine) - statistic(others)), low, high)
