"""How long a run takes before it is made: epochs until it stops, and seconds an epoch.

    log epochs            = task + effects of how the run was set up, at most log max_epochs
    log seconds per epoch = task + log n_train + effects

Both are fitted to their medians, by reweighted least squares: stalled and shared machines give a
few runs that no setting explains. A run that its limit ended (`stop_reason` cap, or as many epochs
as allowed) would have gone on and only says "at least": it pulls while it is predicted to end
sooner, and not beyond (J. Powell, "Least absolute deviations estimation for the censored regression
model", 1984). Effects are one per candidate, recipe, device, batch size, learning rate with
momentum, weight decay, limit, and candidate with batch size, shrunk as random effects.

A new task's own term is the median of the known tasks', and moves to what its own outcomes say.
Tables without epochs are fitted to their seconds directly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from app.cost.cells import Floats, Ints, Mask
from app.cost.medians import ROUNDS, laplace_weights

EFFECT_PRECISION = 1.0
"""Of the normal prior of an effect: a setting makes a run longer or shorter by a factor of e."""

TASK_PRECISION = 1e-3
MOST_LEVELS = 300
"""A setting of more kinds than that is a measurement, not a setting."""

SETTINGS = (
    ("model",),
    ("recipe",),
    ("device",),
    ("batch_size",),
    ("learning_rate", "momentum"),
    ("weight_decay",),
    ("max_epochs",),
    ("model", "batch_size"),
)


@dataclass(frozen=True, slots=True)
class Durations:
    """Runs as the model sees them; nan where something is unknown. All logarithms natural.

    `log_epochs`, `log_seconds`, `log_cap`  (n,); `capped` (n,) whether the limit ended the run
    `effects`                               (n, p) 0 or 1
    `log_images`                            (n,) of n_train; zeros unless every run has it
    """

    group: Ints
    task: Ints
    log_epochs: Floats
    log_seconds: Floats
    log_cap: Floats
    capped: Mask
    effects: Floats
    log_images: Floats


def make_durations(runs: pl.DataFrame, group: str) -> Durations:
    """`runs` of an outcome table that ended by themselves or at their limit."""
    epochs, cap = runs["epochs"].to_numpy(), runs["max_epochs"].to_numpy()
    images = runs["n_train"]
    capped = (runs["stop_reason"] == "cap").to_numpy() | (
        (runs["stop_reason"] == "").to_numpy() & (epochs >= cap)
    )
    return Durations(
        group=_numbered(runs.select(group)),
        task=_numbered(runs.select("task")),
        log_epochs=np.log(epochs),
        log_seconds=np.log(runs["seconds"].to_numpy()),
        log_cap=np.where(np.isfinite(cap), np.log(cap), np.where(capped, np.log(epochs), np.inf)),
        capped=capped,
        effects=_effects(runs),
        log_images=np.zeros(len(runs)) if images.has_nulls() else np.log(images.to_numpy()),
    )


@dataclass(frozen=True, slots=True)
class Timing:
    """(q,) natural logarithms; `epochs` is nan where the table knows none."""

    epochs: Floats
    seconds: Floats


class DurationModel:
    """Fitted to the runs of `known` (n,); every run of the table can be asked for."""

    def __init__(self, durations: Durations, known: Mask) -> None:
        d = self._d = durations
        counted = known & np.isfinite(d.log_epochs)
        self._epochs = _fit(d, counted, d.log_epochs, d.capped) if counted.any() else None
        pace = d.log_seconds - d.log_images - (d.log_epochs if self._epochs else 0.0)
        timed = known & np.isfinite(pace)
        never = np.zeros(len(d.capped), dtype=bool)
        self._pace = _fit(d, timed, pace, never) if timed.any() else None

    def forecast(self, asked: Ints, observed: Ints | None = None) -> Timing:
        """Of the runs `asked`, of one task, given the `observed` runs of it."""
        d = self._d
        epochs, seconds = self._of_a_new_task(asked)
        if observed is not None and len(observed):
            seen_epochs, seen_seconds = self._of_a_new_task(observed)
            ended = ~d.capped[observed]
            if self._epochs is not None:
                epochs = epochs + self._epochs.moved((d.log_epochs[observed] - seen_epochs)[ended])
                epochs = np.minimum(epochs, d.log_cap[asked])
            if self._pace is not None:
                seconds = seconds + self._pace.moved(d.log_seconds[observed] - seen_seconds)
        return Timing(epochs, seconds)

    def _of_a_new_task(self, runs: Ints) -> tuple[Floats, Floats]:
        d = self._d
        epochs, seconds = np.full(len(runs), np.nan), np.full(len(runs), np.nan)
        if self._epochs is not None:
            epochs = np.minimum(self._epochs.at(d, runs), d.log_cap[runs])
        if self._pace is not None:
            seconds = self._pace.at(d, runs) + d.log_images[runs]
            if self._epochs is not None:
                seconds = seconds + epochs
        return epochs, seconds


@dataclass(frozen=True, slots=True)
class _Fit:
    """`offset` of a new task; `doubt`: variance of a run's residual over that of tasks' terms."""

    effects: Floats
    tasks: dict[int, float]
    offset: float
    doubt: float

    def at(self, d: Durations, runs: Ints) -> Floats:
        start = self.tasks.get(int(d.task[runs[0]]), self.offset)
        return np.asarray(start + d.effects[runs] @ self.effects)

    def moved(self, residuals: Floats) -> float:
        """How far outcomes of the task move its term; nan ones say nothing."""
        there = residuals[np.isfinite(residuals)]
        if not len(there):
            return 0.0
        return float(np.median(there)) * len(there) / (len(there) + self.doubt)


def _fit(d: Durations, known: Mask, y: Floats, capped: Mask) -> _Fit:
    ridge = _Ridge(d, known)
    seen, limited = y[known], capped[known]
    target, weight = seen, np.ones(len(seen))
    for _ in range(ROUNDS):
        solution = ridge.solve(target, weight)
        fitted = ridge.fitted(solution)
        target = np.where(limited, np.maximum(seen, fitted), seen)
        weight = laplace_weights(target - fitted)
    return ridge.fit(solution, target)


class _Ridge:
    """y = task + effects, ridge on the effects; solved again for other y or weights."""

    def __init__(self, d: Durations, known: Mask) -> None:
        self._numbers, task = np.unique(d.task[known], return_inverse=True)
        tasks = np.zeros((len(task), len(self._numbers)))
        tasks[np.arange(len(task)), task] = 1.0
        self._n_effects = d.effects.shape[1]
        self._design = np.hstack([d.effects[known], tasks])
        self._penalty = np.full(self._design.shape[1], EFFECT_PRECISION)
        self._penalty[self._n_effects :] = TASK_PRECISION

    def solve(self, y: Floats, weight: Floats) -> Floats:
        design = self._design * weight[:, None]
        centre = float(y.mean())
        gram = design.T @ self._design + np.diag(self._penalty)
        solution = np.linalg.solve(gram, design.T @ (y - centre))
        solution[self._n_effects :] += centre
        return np.asarray(solution)

    def fitted(self, solution: Floats) -> Floats:
        return np.asarray(self._design @ solution)

    def fit(self, solution: Floats, y: Floats) -> _Fit:
        offsets = solution[self._n_effects :]
        residual = float(np.var(y - self.fitted(solution)))
        between = float(np.var(offsets)) if len(offsets) > 1 else residual
        return _Fit(
            effects=solution[: self._n_effects],
            tasks=dict(zip(map(int, self._numbers), map(float, offsets), strict=True)),
            offset=float(np.median(offsets)),
            doubt=residual / max(between, 1e-9),
        )


def _effects(runs: pl.DataFrame) -> Floats:
    columns = [np.zeros((len(runs), 0))]
    for setting in SETTINGS:
        number = _numbered(runs.select(setting))
        levels = int(number.max()) + 1
        if 1 < levels <= MOST_LEVELS:
            column = np.zeros((len(runs), levels))
            column[np.arange(len(runs)), number] = 1.0
            columns.append(column)
    return np.hstack(columns)


def _numbered(columns: pl.DataFrame) -> Ints:
    """Rows numbered by their content, in its order."""
    key = columns.select(pl.struct(columns.columns).rank("dense")).to_series()
    return np.asarray(key.to_numpy().astype(np.int64) - 1)
