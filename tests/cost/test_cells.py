from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from scipy.special import logit

from app.cost.cells import LOGIT_MARGIN, make_cells
from app.errors import InvalidRequest
from tests.cost.outcomes import runs, table


def grid(values: list[float]) -> pl.DataFrame:
    n = len(values)
    return pl.DataFrame(
        {"task": ["a"] * n, "model": ["m"] * n, "metric": ["accuracy"] * n, "value": values}
    )


def test_a_cell_is_its_best_run_and_reaches_the_mean_of_its_best_few():
    cells = make_cells(table(grid([0.5, 0.9, 0.8, 0.7, 0.6])), "task")
    assert cells.value.tolist() == [0.9]
    assert cells.reach[0] == pytest.approx(np.mean(logit([0.9, 0.8, 0.7])))  # ceil(sqrt(5)) = 3


def test_a_single_run_reaches_itself_and_perfection_stays_finite():
    cells = make_cells(table(grid([1.0])), "task")
    assert cells.value.tolist() == [1.0]
    assert cells.reach[0] == pytest.approx(logit(1 - LOGIT_MARGIN))


def test_failed_runs_make_no_cell():
    frame = pl.concat([grid([0.9]), grid([0.2])]).with_columns(
        pl.Series("model", ["good", "bad"]), stop_reason=pl.Series(["converged", "failed"])
    )
    assert make_cells(table(frame), "task").models == ("good",)


def test_a_table_of_failed_runs_is_refused():
    failed = grid([0.9]).with_columns(stop_reason=pl.lit("failed"))
    with pytest.raises(InvalidRequest, match="No run of the table finished"):
        make_cells(table(failed), "task")


def test_recipes_and_metrics_are_contests_of_their_own_and_share_leagues_between_tasks():
    two = pl.concat([runs(2), runs(2).with_columns(recipe=pl.lit("head"))])
    cells = make_cells(table(two), "task")
    assert len(cells.contests) == 4
    assert cells.league.tolist() == [0, 1, 0, 1]


def test_only_the_order_of_scores_within_a_contest_counts():
    frame = runs(3)
    stretched = frame.with_columns(pl.col("score_truth").exp() * 1e6)
    a, b = (make_cells(table(f), "task").scores for f in (frame, stretched))
    np.testing.assert_array_equal(a, b)
    assert a.mean(axis=0) == pytest.approx([0, 0], abs=1e-12)


def test_a_missing_score_is_the_middle_one():
    frame = runs(1).with_columns(
        score_truth=pl.when(pl.col("model") == "model-0")
        .then(None)
        .otherwise(pl.col("score_truth"))
    )
    scores = make_cells(table(frame), "task").scores
    assert scores[0, 0] == 0
    assert scores[1:, 0].mean() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("share", "n_images"), [(0.5, 40), (0.9, 100), (0.8, 200)])
def test_the_noise_of_a_value_is_that_of_its_images(share, n_images):
    right = np.random.default_rng(0).binomial(n_images, share, 4000)
    frame = grid((right / n_images).tolist()).with_columns(
        task=pl.Series([f"t{i:04}" for i in range(4000)]), n_held_out=n_images
    )
    cells = make_cells(table(frame), "task")
    assert cells.noise.mean() == pytest.approx(cells.reach.var(), rel=0.2)


def test_a_value_whose_images_were_not_counted_has_no_noise():
    assert make_cells(table(grid([0.9])), "task").noise.tolist() == [0.0]
