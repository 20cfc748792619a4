"""Measures by simulation what share of a new task's outcomes 90% intervals cover.

    python -m benchmarks.coverage

Every made-up population has as many tasks as named, 30 runs each, and residuals with the share of
their variance that a task's runs have in common. An interval is taken from the other tasks by each
of two quantiles (app/cost/conformal.py): `guaranteed`, the hierarchical conformal one, and
`calibrated`, which serves. Ideal is 0.90; the worst task is the lowest coverage of any task, the
median over populations, beside that of intervals that know the truth. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from app.cost.conformal import calibrated_quantile, grouped_quantile

LEVEL = 0.9
RUNS = 30
TASKS = (9, 12, 20, 40)
SHARES = (0.0, 0.3, 0.6, 0.9)

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Covered:
    """Shares; `worst` is the lowest of any task, `worst_ideal` of intervals that know the truth."""

    guaranteed: float
    calibrated: float
    worst: float
    worst_ideal: float


def simulated(n_tasks: int, common: float, populations: int, seed: int = 0) -> Covered:
    """Of `populations`, each task left out in turn of `n_tasks` + 1."""
    random = np.random.default_rng(seed)
    group = np.repeat(np.arange(n_tasks + 1), RUNS)
    covered = np.zeros((3, populations, n_tasks + 1))
    ideal = norm.ppf((1 + LEVEL) / 2)
    for population in range(populations):
        shared = np.sqrt(common) * random.standard_normal(n_tasks + 1)[group]
        away = np.abs(shared + np.sqrt(1 - common) * random.standard_normal(len(group)))
        for task in range(n_tasks + 1):
            others = group != task
            bounds = (
                grouped_quantile(away[others], group[others], LEVEL),
                calibrated_quantile(away[others], group[others], LEVEL),
                ideal,
            )
            for number, bound in enumerate(bounds):
                covered[number, population, task] = (away[~others] <= bound).mean()
    worst = np.median(covered.min(axis=2), axis=1)
    means = covered.mean(axis=(1, 2))
    return Covered(float(means[0]), float(means[1]), float(worst[1]), float(worst[2]))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--populations", type=int, default=40)
    options = parser.parse_args(arguments)
    figures = {}
    print("tasks  in common  guaranteed  calibrated  worst task  ideal intervals' worst")
    for n_tasks in TASKS:
        for common in SHARES:
            found = simulated(n_tasks, common, options.populations)
            print(
                f"{n_tasks:5}{common:11.1f}{found.guaranteed:12.3f}{found.calibrated:12.3f}"
                f"{found.worst:12.2f}{found.worst_ideal:12.2f}",
                flush=True,
            )
            figures[f"{n_tasks} tasks, {common} in common"] = {
                "guaranteed": found.guaranteed,
                "calibrated": found.calibrated,
                "worst": found.worst,
                "worst_ideal": found.worst_ideal,
            }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
