from __future__ import annotations

import numpy as np
import pytest

from app.cost.conformal import LEAST_GROUPS, calibrated_quantile, grouped_quantile


def test_with_one_row_a_group_it_is_the_usual_conformal_quantile():
    scores = np.arange(1.0, 20.0)  # 19 of them: the ceil(0.9 * 20)-th is the 18th
    assert grouped_quantile(scores, np.arange(19), 0.9) == 18.0


def test_rows_of_a_group_are_one_piece_of_evidence():
    scores = np.concatenate([np.full(1000, 50.0), np.arange(1.0, 19.0)])
    group = np.concatenate([np.zeros(1000, int), np.arange(1, 19)])
    assert grouped_quantile(scores, group, 0.9) == 18.0


@pytest.mark.parametrize("quantile", [grouped_quantile, calibrated_quantile])
def test_too_few_groups_bound_nothing_however_many_rows(quantile):
    for n_groups in range(LEAST_GROUPS):
        group = np.repeat(np.arange(n_groups), 100)
        assert quantile(np.ones(len(group)), group, 0.9) == np.inf
    group = np.repeat(np.arange(LEAST_GROUPS), 100)
    assert quantile(np.ones(len(group)), group, 0.9) == 1.0


@pytest.mark.parametrize("between", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("n_groups", [9, 18])
def test_ninety_per_cent_cover_ninety_per_cent_of_a_new_groups_rows(between, n_groups):
    """The guaranteed quantile at least that, and up to a tenth more; the calibrated one about it."""
    generator = np.random.default_rng(0)
    group = np.repeat(np.arange(n_groups), 15)
    covered = {grouped_quantile: [], calibrated_quantile: []}
    for _ in range(400):
        own = generator.standard_normal((n_groups + 1, 1))
        rows = generator.standard_normal((n_groups + 1, 15))
        scores = np.abs(np.sqrt(between) * own + np.sqrt(1 - between) * rows)
        for quantile, shares in covered.items():
            bound = quantile(scores[:-1].ravel(), group, 0.9)
            shares.append((scores[-1] <= bound).mean())
    assert np.mean(covered[grouped_quantile]) > 0.89
    assert np.mean(covered[calibrated_quantile]) == pytest.approx(0.9, abs=0.03)


def test_the_calibrated_quantile_is_never_above_the_guaranteed_one():
    generator = np.random.default_rng(1)
    for _ in range(50):
        scores = np.abs(generator.standard_t(2, 120))
        group = generator.integers(0, 12, 120)
        assert calibrated_quantile(scores, group, 0.9) <= grouped_quantile(scores, group, 0.9)
