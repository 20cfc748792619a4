from __future__ import annotations

import pytest

from app.cost.drift import tracked


def of(shares: list[float], n: int = 20):
    tasks = [f"t{i}" for i in range(len(shares)) for _ in range(n)]
    inside = [k < share * n for share in shares for k in range(n)]
    return tracked(tasks, inside)


def test_nothing_is_told_of_nothing():
    assert tracked([], []) is None


def test_a_task_counts_once_however_many_runs_it_has():
    found = tracked(["a"] * 90 + ["b"] * 10, [True] * 90 + [False] * 10)
    assert (found.coverage, found.n_outcomes, found.n_tasks) == (0.5, 100, 2)
    assert found.coverage_low < 0.5 < found.coverage_high


def test_one_task_has_no_interval():
    found = of([0.5])
    assert (found.coverage_low, found.coverage_high, found.drifting) == (None, None, False)


@pytest.mark.parametrize(
    ("shares", "drifting"),
    [([0.9] * 12, False), ([0.85, 0.95] * 6, False), ([0.6, 0.7] * 6, True), ([0.6, 0.7], False)],
)
def test_coverage_drifts_where_it_is_too_low_by_more_than_chance(shares, drifting):
    assert of(shares).drifting is drifting
