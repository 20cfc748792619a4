from __future__ import annotations

import numpy as np
import polars as pl

from app.cost.cells import SHIPPED
from app.cost.correction import Correction
from app.cost.estimator import Estimator
from app.cost.evidence import Evidence
from app.cost.validation import compared, judged_accuracy, judged_corrections
from tests.cost.outcomes import runs
from tests.cost.test_estimator import asked


def evidence(frame: pl.DataFrame, *, counted: float | None = None) -> Evidence:
    rows = frame.select("task", "model", "recipe", "metric", "value", "stop_reason", "seconds")
    return Evidence.of(
        {**row, "device": "gpu", "counted_seconds": counted} for row in rows.iter_rows(named=True)
    )


def shuffled(frame: pl.DataFrame) -> pl.DataFrame:
    """Outcomes of other tasks in which candidates come in the reverse order, far apart."""
    x = frame["model"].str.slice(6).cast(pl.Float64)
    return frame.with_columns(
        task=pl.lit("odd ") + pl.col("task"), value=1 / (1 + (2 * (x - 2.5)).exp())
    )


def test_more_of_the_same_is_not_worse():
    comparison = compared(evidence(runs(20)), evidence(runs(20).filter(pl.col("task") < "task-12")))
    assert comparison.n_tasks == 20
    assert not comparison.worse


def test_outcomes_that_contradict_those_before_make_it_worse():
    good = runs(14, noise=0.05)
    bad = shuffled(good.filter(pl.col("task") < "task-12"))
    # Each odd outcome is another candidate's: the old tasks are told worse, the new ones no better.
    bad = bad.with_columns(value=pl.col("value").shuffle(seed=1))
    assert compared(evidence(pl.concat([good, bad])), evidence(good)).worse


def test_better_values_for_what_was_known_are_not_their_own_referee():
    good = runs(14, noise=0.05)
    again = good.with_columns(
        value=pl.when(pl.col("model") == "model-0").then(0.99).otherwise("value")
    )
    assert compared(evidence(pl.concat([good, again])), evidence(good)).worse


def test_shipped_outcomes_stand_beside_both_and_are_not_judged_on():
    mine = runs(6, noise=0.05)
    shipped = evidence(runs(30, noise=0.05).with_columns(task=SHIPPED + pl.col("task")))
    first = evidence(mine.filter(pl.col("task") < "task-02"))
    found = compared(evidence(mine), first, shipped)
    assert found.n_tasks == 6
    assert not found.worse
    # What ships tells the order already: two tasks more of one's own hardly change a forecast.
    assert abs(found.difference) < abs(compared(evidence(mine), first).difference)


def test_of_few_tasks_nothing_can_be_said():
    assert compared(evidence(runs(4)), evidence(runs(4).filter(pl.col("task") < "task-02"))) is None
    failed = runs(6).with_columns(value=None, stop_reason=pl.lit("failed"))
    assert compared(evidence(runs(6)), evidence(failed)) is None


def test_accuracy_is_judged_as_evaluate_does_and_not_on_one_task():
    found = judged_accuracy(evidence(runs(12)), {"model-5": 10})
    assert found.summary["weighted_tau"] > 0.8
    assert found.summary["seconds_medale"] is None
    assert judged_accuracy(evidence(runs(1)), {}) is None


def test_corrections_are_judged_beside_what_was_counted():
    frame = runs(12).with_columns(seconds=pl.lit(300.0))
    estimator = Estimator(evidence(frame, counted=100.0))
    (report,) = judged_corrections(estimator.corrections).values()
    assert (report.n_runs, report.n_tasks) == (72, 12)
    assert np.isclose(report.counted_medale, np.log(3))
    assert report.corrected_medale < 0.2 * report.counted_medale
    one = {name: Correction([], np.array([])) for name in estimator.corrections}
    assert judged_corrections(one) == {}


def test_evidence_survives_parquet():
    before = evidence(runs(3), counted=60.0)
    after = Evidence.from_parquet(before.to_parquet())
    assert after.runs.equals(before.runs)
    assert after.runs.schema == before.runs.schema


def test_shipped_evidence_is_read_as_of_tasks_of_its_own(tmp_path):
    path = tmp_path / "grid.csv"
    path.write_text(
        "task,group,model,recipe,device,metric,value,seconds,stop_reason,score_x,probe_accuracy\n"
        "digits,d,m,full,cpu,accuracy,0.9,3.5,converged,1,0.8\n"
        "flags,f,m,full,cpu,accuracy,0.7,3.5,,1,\n"
        "flags,f,other,full,cpu,accuracy,0.7,3.5,,1,\n"
    )
    shipped = Evidence.shipped(path, {"m"})
    assert shipped.runs["task"].to_list() == ["shipped:digits", "shipped:flags"]
    assert shipped.runs["probe_accuracy"].to_list() == [0.8, None]
    assert shipped.runs["seconds"].to_list() == [None, None]
    assert Evidence.shipped(tmp_path / "none.csv", {"m"}).finished() is None
    both = shipped.beside(evidence(runs(3)))
    assert len(both.runs) == 2 + 18
    assert both.finished() is not None


def test_an_estimator_of_kept_evidence_and_calibration_says_the_same():
    first = Estimator(evidence(runs(12), counted=60.0))
    again = Estimator(
        Evidence.from_parquet(evidence(runs(12), counted=60.0).to_parquet()), first.calibration
    )
    question = asked("new", ["model-1", "model-4"])
    assert first.accuracy.forecast(question) == again.accuracy.forecast(question)
    assert first.calibration == again.calibration
