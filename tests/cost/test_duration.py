from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from app.cost.duration import DurationModel, make_durations
from tests.cost.outcomes import runs, table


def setting(frame: pl.DataFrame):
    parsed = table(frame).runs
    durations = make_durations(parsed, "task")
    new = durations.task == 0
    return durations, ~new, np.flatnonzero(new)


def test_after_one_outcome_of_a_task_its_other_runs_are_timed():
    durations, known, rows = setting(runs())
    model = DurationModel(durations, known)
    before = np.abs(model.forecast(rows[1:]).seconds - durations.log_seconds[rows[1:]])
    after = np.abs(model.forecast(rows[1:], rows[:1]).seconds - durations.log_seconds[rows[1:]])
    assert np.median(before) > 0.5  # the size of a new task is unknown
    assert np.median(after) < 0.2


def test_the_number_of_images_tells_a_new_tasks_size():
    generator = np.random.default_rng(0)
    sizes = dict(enumerate(np.exp(generator.normal(6, 1.5, 12)).round()))
    task, model = (
        pl.col(name).str.slice(from_).cast(pl.Int64) for name, from_ in (("task", 5), ("model", 6))
    )
    frame = runs().with_columns(n_train=task.replace_strict(sizes))
    frame = frame.with_columns(seconds=pl.col("n_train") * pl.col("epochs") * (model + 1))

    def median_error(frame: pl.DataFrame) -> float:
        durations, _, _ = setting(frame)
        errors = []
        for left_out in range(12):
            new = durations.task == left_out
            rows = np.flatnonzero(new)
            seconds = DurationModel(durations, ~new).forecast(rows).seconds
            errors.append(np.median(np.abs(seconds - durations.log_seconds[rows])))
        return float(np.median(errors))

    assert median_error(frame) < 0.05
    assert median_error(frame.drop("n_train")) > 0.5


def test_epochs_beyond_the_limit_are_never_forecast():
    durations, known, rows = setting(runs())
    epochs = DurationModel(durations, known).forecast(rows).epochs
    assert np.exp(epochs).max() <= 60 + 1e-9


def test_a_run_that_its_limit_ended_says_at_least():
    """Half of each candidate's runs stopped at 20 epochs, their limit; they would have gone on to
    about 40, as the ones with a limit of 1,000 did."""
    generator = np.random.default_rng(0)
    limit = np.tile([20.0, 1000.0], 60)
    hidden = 40 * np.exp(generator.normal(0, 0.3, 120))
    frame = pl.DataFrame(
        {
            "task": np.repeat([f"t{i:02}" for i in range(12)], 10),
            "model": "m",
            "metric": "accuracy",
            "value": 0.5,
            "max_epochs": limit,
            "epochs": np.minimum(hidden, limit),
            "seconds": np.minimum(hidden, limit),
            "stop_reason": np.where(hidden > limit, "cap", "converged"),
        }
    )
    durations, known, rows = setting(frame)
    free = rows[np.isfinite(durations.log_cap[rows]) & (durations.log_cap[rows] > np.log(500))]
    forecast = DurationModel(durations, known).forecast(free)
    assert np.exp(forecast.epochs) == pytest.approx(np.full(len(free), 40), rel=0.2)


def test_runs_without_epochs_are_timed_by_their_seconds():
    durations, known, rows = setting(runs().drop("epochs", "max_epochs", "stop_reason"))
    timing = DurationModel(durations, known).forecast(rows)
    assert np.isnan(timing.epochs).all()
    assert np.isfinite(timing.seconds).all()


def test_a_stalled_machine_moves_nothing():
    frame = runs()
    stalled = frame.with_columns(
        seconds=pl.when(pl.int_range(pl.len()) == 70)
        .then(pl.col("seconds") * 1e4)
        .otherwise("seconds")
    )
    forecasts = [
        DurationModel(durations, known).forecast(rows).seconds
        for durations, known, rows in (setting(frame), setting(stalled))
    ]
    np.testing.assert_allclose(forecasts[0], forecasts[1], atol=0.3)
