from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from app.cost.cells import make_cells, with_contest
from app.cost.priors import Priors
from tests.cost.outcomes import runs, table


@pytest.mark.parametrize(
    ("contest", "models"),
    [
        (("new", "full", "accuracy"), ["model-0", "model-3"]),
        (("new", "full", "accuracy"), ["model-0", "nobody-tried", "model-5"]),
        (("new", "another-recipe", "accuracy"), ["nobody-tried", "model-2"]),
        (("task-03", "full", "accuracy"), ["model-1", "nobody-tried"]),
    ],
)
def test_grown_to_a_question_they_are_those_of_the_grown_table(contest, models):
    runs_of_two = pl.concat(
        [runs(), runs(seed=1).filter(pl.col("model") < "model-4").with_columns(recipe=pl.lit("b"))]
    )
    cells = make_cells(table(runs_of_two), "task")
    grown, _ = with_contest(cells, contest, models)
    known = np.isfinite(grown.reach)
    found = Priors.of(cells, np.isfinite(cells.reach)).grown(grown)
    fitted = Priors.of(grown, known)
    np.testing.assert_allclose(found.strengths, fitted.strengths, atol=1e-9)
    np.testing.assert_allclose(found.elsewhere, fitted.elsewhere, atol=1e-9)
    np.testing.assert_allclose(found.left_out[known], fitted.left_out[known], atol=1e-9)


def test_a_tasks_own_outcomes_do_not_enter_what_it_is_told_by():
    frame = runs()
    turned = frame.with_columns(
        value=pl.when(pl.col("task") == "task-00").then(1 - pl.col("value")).otherwise("value")
    )
    told = []
    for each in (frame, turned):
        cells = make_cells(table(each), "task")
        priors = Priors.of(cells, np.isfinite(cells.reach))
        told.append(priors.left_out[cells.group == cells.groups.index("task-00")])
    np.testing.assert_array_equal(*told)
