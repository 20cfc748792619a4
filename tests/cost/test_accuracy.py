from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from app.cost.accuracy import AccuracyModel
from app.cost.cells import make_cells
from tests.cost.outcomes import runs, table


def setting(frame: pl.DataFrame, left_out: str = "task-00"):
    cells = make_cells(table(frame), "task")
    group = cells.groups.index(left_out)
    rows = np.flatnonzero(cells.group == group)
    return cells, cells.group != group, rows


def without_scores(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.drop("score_truth", "score_noise")


def test_a_new_tasks_candidates_come_in_the_order_of_other_tasks():
    cells, known, rows = setting(without_scores(runs(noise=0.05)))
    mean = AccuracyModel(cells, known).forecast(rows).mean
    assert np.argsort(mean).tolist() == list(range(6))


def test_nothing_of_a_task_that_is_left_out_reaches_its_forecast():
    frame = runs()
    turned = frame.with_columns(
        value=pl.when(pl.col("task") == "task-00").then(1 - pl.col("value")).otherwise("value")
    )
    forecasts = []
    for each in (frame, turned):
        cells, known, rows = setting(each)
        forecasts.append(AccuracyModel(cells, known).forecast(rows))
    np.testing.assert_array_equal(forecasts[0].mean, forecasts[1].mean)
    np.testing.assert_array_equal(forecasts[0].covariance, forecasts[1].covariance)


def test_a_score_that_knows_more_than_other_tasks_is_heard():
    frame = runs(noise=1.5)  # the task's own noise, which `score_truth` contains
    errors = {}
    for name, each in (("with", frame), ("without", without_scores(frame))):
        taus = []
        for left_out in range(12):
            cells, known, rows = setting(each, f"task-{left_out:02}")
            mean = AccuracyModel(cells, known).forecast(rows).mean
            taus.append(np.corrcoef(mean, cells.reach[rows])[0, 1])
        errors[name] = np.mean(taus)
    assert errors["with"] > errors["without"] + 0.1


def test_an_outcome_seen_tells_the_tasks_level_and_narrows_the_rest():
    before, after = [], []
    for left_out in range(12):
        cells, known, rows = setting(without_scores(runs(noise=0.05)), f"task-{left_out:02}")
        model = AccuracyModel(cells, known)
        blind, told = model.forecast(rows[1:]), model.forecast(rows[1:], rows[:1])
        assert (np.diag(told.covariance) < 0.1 * np.diag(blind.covariance)).all()
        for errors, forecast in ((before, blind), (after, told)):
            errors.append(np.abs(forecast.mean - cells.reach[rows[1:]]).mean())
    assert np.mean(after) < 0.25 * np.mean(before)


def test_a_candidate_nobody_tried_is_an_average_one_and_less_certain_than_others():
    frame = without_scores(runs())
    stranger = frame.filter(pl.col("task") == "task-00").head(1)
    frame = pl.concat([frame, stranger.with_columns(model=pl.lit("stranger"))])
    cells, known, rows = setting(frame)
    model = AccuracyModel(cells, known)
    forecast = model.forecast(rows)
    new = int(np.flatnonzero(cells.model[rows] == cells.models.index("stranger"))[0])
    others = np.delete(forecast.mean, new)
    assert others.min() < forecast.mean[new] < others.max()


def test_the_covariance_is_one():
    frame = runs(noise=0.5).filter(pl.Series(np.random.default_rng(0).random(72) < 0.6))
    cells, known, rows = setting(without_scores(frame))
    covariance = AccuracyModel(cells, known).forecast(rows).covariance
    np.testing.assert_allclose(covariance, covariance.T)
    assert np.linalg.eigvalsh(covariance).min() > 0


@pytest.mark.parametrize("n_tasks", [2, 3])
def test_few_tasks_still_give_finite_forecasts(n_tasks):
    cells, known, rows = setting(runs(n_tasks))
    forecast = AccuracyModel(cells, known).forecast(rows)
    assert np.isfinite(forecast.mean).all()
    assert np.isfinite(forecast.covariance).all()


def test_a_candidate_without_outcomes_under_one_recipe_is_known_from_another():
    full = without_scores(runs(noise=0.05))
    head = full.with_columns(recipe=pl.lit("head")).filter(pl.col("model") != "model-5")
    only = full.filter((pl.col("model") == "model-5") & (pl.col("task") == "task-00"))
    frame = pl.concat([full, head, only.with_columns(recipe=pl.lit("head"))])
    cells, known, rows = setting(frame)
    contest = cells.contests.index(("task-00", "head", "accuracy"))
    rows = np.flatnonzero(cells.contest == contest)
    mean = AccuracyModel(cells, known).forecast(rows).mean
    assert cells.models[cells.model[rows[np.argmax(mean)]]] == "model-5"


def test_who_was_tried_only_where_all_are_strong_is_strong():
    """Every task tries two candidates next to each other; only chains of them compare all."""
    frame = without_scores(runs(40, noise=0.02))
    number = pl.col("model").str.slice(6).cast(pl.Int64)
    starts = dict(enumerate(np.random.default_rng(0).integers(0, 5, 40)))
    start = pl.col("task").str.slice(5).cast(pl.Int64).replace_strict(starts)
    pairs = frame.filter((number == start) | (number == start + 1) | (pl.col("task") == "task-00"))
    cells, known, rows = setting(pairs)
    mean = AccuracyModel(cells, known).forecast(rows).mean
    assert np.argsort(mean).tolist() == list(range(6))
