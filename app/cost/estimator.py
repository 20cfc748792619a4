"""What candidates will reach on a task and what it will cost, as outcomes of others have it.

An estimator is fitted to evidence (evidence.py), and calibrated: on every task under a fit that
never saw it. A calibration can be kept and given to a later fit to the same evidence, which then is
a matter of milliseconds.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.stats import norm

from app.cost.accuracy import AccuracyModel
from app.cost.cells import (
    LOGIT_MARGIN,
    Cells,
    Floats,
    Mask,
    ease_of,
    from_logit,
    is_shipped,
    make_cells,
    to_logit,
    with_contest,
)
from app.cost.conformal import COVERAGE, LEAST_GROUPS, calibrated_quantile, calibration_sets
from app.cost.correction import Correction, Factor, Setting
from app.cost.evidence import COUNTED, Evidence
from app.cost.outcome_table import OutcomeTable
from app.cost.predictor import CountedName, Interval
from app.cost.priors import Priors

LEAST_VARIANCE = 1e-12
LEAST_DEVIATIONS = 0.2
"""However well a few tasks were told."""

RUN_SD = 0.2
"""Logits between two runs of one candidate on one task, which few outcomes tell."""

TIMED: tuple[CountedName, ...] = ("seconds", "energy_wh")
"""What timed steps say something of."""

LEAST_TASKS = 2
"""Other tasks that a candidate's accuracy is told from, at least."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Of one fit: `deviations`, half of a 90% interval of accuracy in deviations of a forecast, and
    `halves`, natural logarithms, of each correction. inf where there are too few tasks."""

    deviations: float
    halves: Mapping[CountedName, float]


@dataclass(frozen=True, slots=True)
class Question:
    """What candidates would reach on a task.

    `published`       their names, with their top-1 accuracy on ImageNet-1k, a share, where known
    `probe_accuracy`  cross-validated share that the probe's head gets right on the task
    `scores`          by candidate, of SCORES (evidence.py) those that its features told
    `seen`            finished runs on the task, whether the fit knows them or not
    """

    task: str
    recipe: str
    metric: str
    published: Mapping[str, float | None]
    probe_accuracy: float | None = None
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    seen: OutcomeTable | None = None


@dataclass(frozen=True, slots=True)
class Joint:
    """What candidates (q,) will reach on one task, logits: `mean` (q,), `covariance` (q, q);
    `calibrated` (q,) whether its scale is, on other tasks. `again` (q,): variance of another run of
    a candidate that ran there, beside what the first is worth."""

    models: tuple[str, ...]
    mean: Floats
    covariance: Floats
    calibrated: Mask
    again: Floats

    @property
    def sd(self) -> Floats:
        """(q,) of a run to come."""
        return np.sqrt(np.maximum(np.diag(self.covariance) + self.again, LEAST_VARIANCE))

    def intervals(self) -> dict[str, Interval]:
        """Values of the metric, 0 to 1: the 90% interval about the median, or, where it cannot be
        calibrated, the one that the model itself believes. Beyond LOGIT_MARGIN of 0 or 1 nothing is
        told apart, so it ends there."""
        half = self.sd * norm.ppf((1 + COVERAGE) / 2)
        low, typical, high = (from_logit(self.mean + shift) for shift in (-half, 0 * half, half))
        return {
            name: Interval(
                float(low[i]) if low[i] > LOGIT_MARGIN else 0.0,
                float(typical[i]),
                float(high[i]) if high[i] < 1 - LOGIT_MARGIN else 1.0,
                "conformal_90" if self.calibrated[i] else "uncalibrated_range",
            )
            for i, name in enumerate(self.models)
        }

    def draws(self, count: int, seed: int) -> Floats:
        """(count, q) shares, 0 to 1: what they may reach together; those that ran, what that run is
        worth on all images."""
        wide = self.covariance + LEAST_VARIANCE * np.eye(len(self.mean))
        random = np.random.default_rng(seed)
        normal = random.standard_normal((count, len(self.mean)))
        return from_logit(self.mean + normal @ np.linalg.cholesky(wide).T)


class Estimator:
    """Of one body of evidence."""

    def __init__(self, evidence: Evidence, calibration: Calibration | None = None) -> None:
        halves = calibration.halves if calibration else {}
        finished = evidence.finished()
        self.accuracy = (
            AccuracyEstimator(finished, calibration.deviations if calibration else None)
            if finished is not None
            else None
        )
        self.corrections = {
            name: Correction(*evidence.ratios(name), halves.get(name)) for name in COUNTED
        }

    @property
    def calibration(self) -> Calibration:
        return Calibration(
            self.accuracy.deviations if self.accuracy else float("inf"),
            {name: correction.half for name, correction in self.corrections.items()},
        )

    def factors(
        self, setting: Setting, *, is_timed: bool = False
    ) -> dict[CountedName, Factor | None]:
        """By what to multiply what is counted for a run.

        `is_timed`  the candidate's steps were timed on the device: they say more of its seconds,
                    and so of its energy, than outcomes of other runs do
        """
        found = {name: each.factor(setting) for name, each in self.corrections.items()}
        if is_timed:
            for name in TIMED:
                if not self.corrections[name].knows(setting):
                    found[name] = None
        return found


class AccuracyEstimator:
    """Of one table of outcomes. `deviations`: as in Calibration, calibrated here unless given, on
    the tasks that are not shipped: a new one is one more of these."""

    def __init__(self, table: OutcomeTable, deviations: float | None = None) -> None:
        self._cells = make_cells(table, "task")
        self._priors = Priors.of(self._cells, np.isfinite(self._cells.reach))
        self._own = [g for g, task in enumerate(self._cells.groups) if not is_shipped(task)]
        self.deviations = self._calibrated() if deviations is None else deviations

    def forecast(self, asked: Question) -> dict[str, Interval]:
        """Of the candidates that something can be said of."""
        return self.joint(asked).intervals()

    def joint(self, asked: Question) -> Joint:
        """Of the candidates together that something can be said of: those tried on LEAST_TASKS
        other tasks or more, and, if any of these has a published accuracy, others that have one."""
        tried = {m for m in self._cells.models if self._tasks_tried(m, asked.task) >= LEAST_TASKS}
        anchored = any(asked.published.get(model) is not None for model in tried)
        told = tuple(
            m
            for m, top1 in asked.published.items()
            if m in tried or (anchored and top1 is not None)
        )
        if not told:
            none = np.zeros(0)
            return Joint((), none, np.zeros((0, 0)), np.zeros(0, dtype=bool), none)
        contest = (asked.task, asked.recipe, asked.metric)
        reached = _reached(asked.seen, contest)
        names = [*dict.fromkeys((*told, *reached))]
        cells, rows = with_contest(
            self._cells, contest, names, ease_of(asked.probe_accuracy), asked.scores
        )
        # What was seen in the contest is evidence of it once, not of the league as well.
        known = np.isfinite(cells.reach) & (cells.contest != cells.contest[rows[0]])
        of_model = {int(cells.model[row]): int(row) for row in rows}
        reach, noise = cells.reach.copy(), cells.noise.copy()
        for name, value in reached.items():
            row = of_model[cells.models.index(name)]
            reach[row], noise[row] = value
        published = [asked.published.get(name) for name in cells.models]
        model = AccuracyModel(
            replace(cells, reach=reach, noise=noise),
            known,
            np.array([np.nan if top1 is None else to_logit(np.array(top1)) for top1 in published]),
            self._priors.grown(cells),
        )
        found = model.forecast(rows[: len(told)], rows[np.isfinite(reach[rows])])
        calibrated = np.array(
            [name not in reached and self._is_calibrated(name, contest) for name in told]
        )
        scale = np.ones(len(told))
        if np.isfinite(self.deviations):
            believed = max(self.deviations, LEAST_DEVIATIONS) / norm.ppf((1 + COVERAGE) / 2)
            scale = np.where(calibrated, believed, max(believed, 1.0))
        again = np.array([RUN_SD**2 if name in reached else 0.0 for name in told])
        covariance = np.outer(scale, scale) * found.covariance
        return Joint(told, found.mean, covariance, calibrated, again)

    def _tasks_tried(self, model: str, task: str) -> int:
        return len(self._tasks_of(model) - {task})

    def _tasks_of(self, model: str, league: tuple[str, str] | None = None) -> set[str]:
        """On which it was tried, under a recipe and by a metric, or any."""
        if model not in self._cells.models:
            return set()
        rows = self._cells.model == self._cells.models.index(model)
        contests = [self._cells.contests[contest] for contest in self._cells.contest[rows]]
        return {contest[0] for contest in contests if league in {None, contest[1:]}}

    def _is_calibrated(self, model: str, contest: tuple[str, str, str]) -> bool:
        """Whether this recipe and metric were reported on enough tasks, and this candidate on some
        of them."""
        task, *league = contest
        of_league = {name[0] for name in self._cells.contests if name[1:] == contest[1:]}
        own = {name for name in of_league if not is_shipped(name)}
        tried = {name for name in self._tasks_of(model, (league[0], league[1])) if name in own}
        return (
            bool(np.isfinite(self.deviations))
            and len(own) >= LEAST_GROUPS
            and len(tried - {task}) >= LEAST_TASKS
        )

    def _calibrated(self) -> float:
        if len(self._own) < LEAST_GROUPS:
            return float("inf")
        away, groups = [], []
        for fold in calibration_sets(len(self._own)):
            left_out = [self._own[number] for number in fold]
            inside = np.isin(self._cells.group, left_out)
            away.append(deviations_of(self._cells, left_out)[inside])
            groups.append(self._cells.group[inside])
        return calibrated_quantile(np.concatenate(away), np.concatenate(groups), COVERAGE)


def _reached(
    seen: OutcomeTable | None, contest: tuple[str, str, str]
) -> dict[str, tuple[float, float]]:
    """Logit, and the variance of its noise, of the candidates that were tried in this contest."""
    if seen is None:
        return {}
    cells = make_cells(seen, "task")
    if contest not in cells.contests:
        return {}
    rows = np.flatnonzero(cells.contest == cells.contests.index(contest))
    return {
        cells.models[cells.model[row]]: (float(cells.reach[row]), float(cells.noise[row]))
        for row in rows
    }


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
        sd[rows] = np.sqrt(np.maximum(np.diag(forecast.covariance), LEAST_VARIANCE))
    return mean, sd
