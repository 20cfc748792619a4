from __future__ import annotations

import numpy as np

from app.cost.plausibility import LEAST_LIKE, implausible


def test_only_what_is_far_from_its_own_group_is_marked():
    generator = np.random.default_rng(0)
    x = np.concatenate([generator.normal(0, 1, 50), generator.normal(30, 1, 50)])
    group = np.repeat([0, 1], 50)
    assert not implausible(x, group).any()
    x[7] = 30.0  # usual in the other group
    assert np.flatnonzero(implausible(x, group)).tolist() == [7]


def test_outliers_do_not_hide_each_other():
    x = np.concatenate([np.random.default_rng(0).normal(0, 1, 40), np.full(10, 100.0)])
    assert np.flatnonzero(implausible(x, np.zeros(50, int))).tolist() == list(range(40, 50))


def test_of_a_few_nothing_is_far_and_nan_never_is():
    few = np.append(np.zeros(LEAST_LIKE - 1), 1e6)
    assert not implausible(few, np.zeros(LEAST_LIKE, int)).any()
    many = np.append(np.zeros(20), [np.nan, 1e6])
    assert np.flatnonzero(implausible(many, np.zeros(22, int))).tolist() == [21]


def test_equal_numbers_leave_room_for_rounding():
    x = np.append(np.zeros(20), 0.5)
    assert not implausible(x, np.zeros(21, int)).any()
