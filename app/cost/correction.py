"""How runs turned out beside what was counted for them: factors on seconds, energy and memory.

    log(measured / counted) = device + candidate + recipe + (device, candidate) + task

Every term is a random effect about 0, so that one run moves what is told of its own candidate on
its own device most, of others less, and nothing at all on a device that no run was made on: how a
processor falls short of its peak numbers says nothing of another. Fitted to the median, by
reweighted ridge regression, since stalled and shared machines give runs that no setting explains.

The interval is conformal with the task as unit (conformal.py): residuals of every task under a fit
that never saw it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse

from app.cost.cells import Floats, Ints
from app.cost.conformal import COVERAGE, LEAST_GROUPS, calibrated_quantile, calibration_sets
from app.cost.medians import ROUNDS, laplace_weights

EFFECT_PRECISION = 1.0
"""Of every term but the task's: a device or candidate makes a run longer by a factor of e or so."""

TASK_PRECISION = 4.0
"""What is odd about one task is counted already, but for what its images cost to decode."""

Term = tuple[str, ...]
"""What the effect is of, and the names that it belongs to."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What a run was, by names."""

    task: str
    model: str
    recipe: str
    device: str

    @property
    def terms(self) -> tuple[Term, ...]:
        """The task's first."""
        return (
            ("task", self.task),
            ("device", self.device),
            ("model", self.model),
            ("recipe", self.recipe),
            ("device and model", self.device, self.model),
        )


@dataclass(frozen=True, slots=True)
class Factor:
    """Measured over counted, low <= typical <= high; `low` and `high` are None where there are too
    few tasks to calibrate on, or nothing is known of the candidate on the device."""

    typical: float
    low: float | None = None
    high: float | None = None


class Correction:
    """Fitted to n runs: their settings and log ratios (n,), natural, nan where not measured.

    `half`  of the interval, natural logarithms; inf where there are too few tasks. Calibrated
            here unless it is given, from an earlier fit to the same runs.
    """

    def __init__(
        self, settings: Sequence[Setting], log_ratios: Floats, half: float | None = None
    ) -> None:
        there = np.flatnonzero(np.isfinite(log_ratios))
        self._settings = [settings[i] for i in there.tolist()]
        self._log_ratios = log_ratios[there]
        self._devices = {setting.device for setting in self._settings}
        self._tried = {(setting.device, setting.model) for setting in self._settings}
        self._ran = {(each.device, each.model, each.recipe) for each in self._settings}
        self.n_tasks = len({setting.task for setting in self._settings})
        self._effects = _fit(self._settings, self._log_ratios)
        self.half = self._calibrated() if half is None else half

    def knows(self, setting: Setting) -> bool:
        """Whether the candidate ran on the device under the recipe."""
        return (setting.device, setting.model, setting.recipe) in self._ran

    def factor(self, setting: Setting) -> Factor | None:
        """None on a device of which nothing is known."""
        if setting.device not in self._devices:
            return None
        log_typical = _at(self._effects, setting)
        typical = float(np.exp(log_typical))
        if not np.isfinite(self.half) or (setting.device, setting.model) not in self._tried:
            return Factor(typical)
        low, high = np.exp([log_typical - self.half, log_typical + self.half])
        return Factor(typical, float(low), float(high))

    @cached_property
    def missed(self) -> tuple[Floats, Ints]:
        """|residual| of every run, natural logarithms, under a fit that saw nothing of its task;
        and the number of that task."""
        names = sorted({setting.task for setting in self._settings})
        number = {name: place for place, name in enumerate(names)}
        task = np.array([number[setting.task] for setting in self._settings], dtype=np.int64)
        away = np.zeros(len(task))
        for fold in calibration_sets(len(names)):
            inside = np.isin(task, list(fold))
            fitted = _fit(
                [self._settings[i] for i in np.flatnonzero(~inside)], self._log_ratios[~inside]
            )
            told = [_at(fitted, self._settings[i]) for i in np.flatnonzero(inside)]
            away[inside] = np.abs(self._log_ratios[inside] - told)
        return away, task

    def counted_missed(self) -> Floats:
        """The same of what was counted, uncorrected."""
        return np.asarray(np.abs(self._log_ratios))

    def _calibrated(self) -> float:
        if self.n_tasks < LEAST_GROUPS:
            return float("inf")
        return calibrated_quantile(*self.missed, COVERAGE)


def _at(effects: dict[Term, float], setting: Setting) -> float:
    return sum(effects.get(term, 0.0) for term in setting.terms)


def _fit(settings: Sequence[Setting], y: Floats) -> dict[Term, float]:
    """Every term's value.

    A run has one task, so the equations of tasks are solved by hand, each in those of the other
    terms; these are few, however many runs and tasks there are.
    """
    if not settings:
        return {}
    tasks, of_task = _indicators([each.terms[:1] for each in settings])
    others, of_others = _indicators([each.terms[1:] for each in settings])
    weight: Floats = np.ones(len(y))
    for _ in range(ROUNDS):
        by_task, by_others = of_task.T * weight, of_others.T * weight
        total = by_task.sum(axis=1) + TASK_PRECISION
        shared = by_task @ of_others
        gram = by_others @ of_others - shared.T @ (shared / total[:, None])
        gram = gram.toarray() + EFFECT_PRECISION * np.eye(len(others))
        sums = by_task @ y
        effects = np.asarray(np.linalg.solve(gram, by_others @ y - shared.T @ (sums / total)))
        odd = (sums - shared @ effects) / total
        weight = laplace_weights(y - of_others @ effects - of_task @ odd)
    return dict(zip((*tasks, *others), map(float, (*odd, *effects)), strict=True))


def _indicators(rows: Sequence[Sequence[Term]]) -> tuple[list[Term], sparse.csr_array]:
    """The terms there are, and (n, terms) which of them each row has."""
    place: dict[Term, int] = {}
    columns = [place.setdefault(term, len(place)) for row in rows for term in row]
    starts = np.arange(0, len(columns) + 1, len(rows[0]))
    return list(place), sparse.csr_array((np.ones(len(columns)), columns, starts))
