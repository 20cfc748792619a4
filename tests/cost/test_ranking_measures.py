from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from app.cost.ranking_measures import random_regret, regret, weighted_tau

VALUE = np.array([0.2, 0.9, 0.5, 0.7, 0.7])


def test_the_right_order_has_tau_one_and_the_reverse_minus_one():
    value = np.array([0.1, 0.4, 0.2, 0.9])
    assert weighted_tau(value, value) == pytest.approx(1)
    assert weighted_tau(value, -value) == pytest.approx(-1)


def test_a_fault_at_the_top_costs_more_than_one_at_the_bottom():
    value = np.arange(6.0)
    top, bottom = value.copy(), value.copy()
    top[[5, 4]] = top[[4, 5]]
    bottom[[0, 1]] = bottom[[1, 0]]
    assert weighted_tau(value, top) < weighted_tau(value, bottom) < 1


def test_a_strength_that_says_nothing_has_tau_zero():
    assert weighted_tau(VALUE, np.zeros(5)) == 0
    assert weighted_tau(np.ones(5), VALUE) == 0


def test_regret_is_in_points_below_the_best():
    strength = np.array([5, 1, 4, 3, 2])
    assert regret(VALUE, strength, 1) == pytest.approx(70)
    assert regret(VALUE, strength, 3) == pytest.approx(20)
    assert regret(VALUE, strength, 9) == 0


@pytest.mark.parametrize("tries", [1, 2, 3, 5, 8])
def test_random_regret_is_the_mean_over_all_choices(tries):
    choices = list(combinations(VALUE, min(tries, 5)))
    expected = 100 * np.mean([VALUE.max() - max(choice) for choice in choices])
    assert random_regret(VALUE, tries) == pytest.approx(expected)
