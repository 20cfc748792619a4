"""Statistics of learning by heart, on made-up curves."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.memorising import STATISTICS, Run, plot, told


def made_up(task: str, is_shuffled: bool, traces: list[float]) -> Run:
    curve = [
        {
            "number": number,
            "training_loss": 1 / number,
            "loss": 2 / number,
            "accuracy": 0.5,
            "information": trace,
        }
        for number, trace in enumerate(traces, 1)
    ]
    return Run(task, is_shuffled, curve)


RUNS = [
    made_up("a", False, [1.0, 8.0, 2.0]),
    made_up("a", True, [1.0, 8.0, 6.0]),
    made_up("b", False, [1.0, 10.0, 9.0]),
    made_up("b", True, [1.0, 2.0, 10.0]),
]


def test_runs_of_one_task_are_held_against_each_other_and_all_against_all() -> None:
    left = told(RUNS, STATISTICS["information left of the peak"])
    assert left["shuffled_above"] == 1.0
    assert left["auc"] == 0.75, "0.75 lies below the 0.9 of the other task's"
    assert (left["true_median"], left["shuffled_median"]) == pytest.approx((0.575, 0.875))


def test_what_is_the_same_tells_nothing() -> None:
    same = told(RUNS, STATISTICS["training loss at the end"])
    assert (same["shuffled_above"], same["auc"]) == (0.0, 0.5)


def test_runs_are_drawn(tmp_path: Path) -> None:
    plot(tmp_path / "memorising.svg", RUNS)
    assert (tmp_path / "memorising.svg").read_text().count('id="axes_') == 2
