from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from app.cost import conformal
from app.cost.evaluation import SUMMARIES, evaluate
from app.cost.judge_accuracy import PRIOR
from app.cost.judge_durations import TIME_BASELINE
from app.errors import InvalidRequest
from tests.cost.outcomes import runs, table


def test_every_key_is_there_for_the_estimator_and_every_baseline():
    found = evaluate(table(runs()), parameters={f"model-{i}": 10**i for i in range(6)})
    assert set(found.summary) == set(SUMMARIES)
    assert set(found.baselines) == {
        "random", PRIOR, "largest_model", "nearest_task", "score_truth", "score_noise",
        TIME_BASELINE, "constant_time",
    }  # fmt: skip
    assert all(set(row) == set(SUMMARIES) for row in found.baselines.values())
    assert found.baselines["largest_model"]["weighted_tau"] > 0.8  # sizes are in order of strength
    assert found.baselines["score_truth"]["weighted_tau"] == pytest.approx(1)
    assert abs(found.baselines["score_noise"]["weighted_tau"]) < 0.4


def test_what_a_table_cannot_give_is_none():
    found = evaluate(table(runs(8).drop("seconds", "score_truth", "score_noise")))
    assert found.summary["coverage90_mean"] is None  # seven tasks are left to calibrate on
    assert found.summary["seconds_medale"] is None
    assert found.baselines["largest_model"]["weighted_tau"] is None
    assert found.baselines["nearest_task"]["weighted_tau"] is None
    assert found.paired["seconds_medale"] is None


def test_ninety_per_cent_intervals_cover_about_that():
    found = evaluate(table(runs(24, noise=0.4, seed=3)))
    assert found.summary["coverage90_mean"] == pytest.approx(0.9, abs=0.05)
    assert found.summary["coverage90_worst_task"] <= found.summary["coverage90_mean"]


def test_folds_of_groups_calibrate_like_pairs(monkeypatch):
    frame = table(runs(20, noise=0.4))
    paired = evaluate(frame).summary
    monkeypatch.setattr(conformal, "MOST_SINGLE_GROUPS", 10)
    folded = evaluate(frame).summary
    assert folded["weighted_tau"] == paired["weighted_tau"]
    assert folded["width90_median"] == pytest.approx(paired["width90_median"], rel=0.1)


def test_an_estimator_that_learnt_from_what_it_is_judged_by_would_be_found_out():
    """Values without any pattern: whoever orders them well has seen them."""
    generator = np.random.default_rng(0)
    frame = runs(20, 8).drop("score_truth", "score_noise")
    frame = frame.with_columns(value=pl.Series(generator.uniform(0.2, 0.8, len(frame))))
    found = evaluate(table(frame))
    low, high = found.intervals["weighted_tau"]
    assert low < 0.1
    assert high > -0.3


def test_other_columns_can_be_left_out():
    by_model = evaluate(table(runs()), group="model")
    assert by_model.n_groups == 6
    assert (
        by_model.summary["regret_adaptive3_median"] is None
    )  # other candidates' outcomes are known
    assert by_model.baselines[PRIOR]["weighted_tau"] == 0


def test_a_recipe_can_be_chosen():
    two = pl.concat([runs(), runs(seed=1).with_columns(recipe=pl.lit("head"))])
    assert evaluate(table(two), recipe="head").n_cells == 72
    with pytest.raises(InvalidRequest, match="There are 'full', 'head'"):
        evaluate(table(two), recipe="heads")


@pytest.mark.parametrize("group", ["value", "colour"])
def test_a_group_that_is_none_is_refused(group):
    with pytest.raises(InvalidRequest, match="Use one of task, model"):
        evaluate(table(runs()), group=group)


def test_one_task_leaves_nothing_to_learn_from():
    with pytest.raises(InvalidRequest, match="All outcomes have the same task, 'task-00'"):
        evaluate(table(runs(1)))


def test_the_seed_decides_what_is_random():
    frame = table(runs(12, 20))
    a, b, c = (evaluate(frame, seed=seed) for seed in (0, 0, 1))
    assert a == b
    assert a.intervals != c.intervals


def test_how_easy_tasks_are_for_the_probe_narrows_what_is_told_of_them():
    frame = runs(20, noise=0.05).drop("score_truth", "score_noise")
    ease = frame.group_by("task").agg(pl.col("value").mean().alias("probe_accuracy"))
    blind, told = evaluate(table(frame)), evaluate(table(frame.join(ease, on="task")))
    assert told.summary["width90_median"] < 0.6 * blind.summary["width90_median"]
    assert told.summary["coverage90_mean"] == pytest.approx(0.9, abs=0.06)
