from __future__ import annotations

import numpy as np
import pytest

from app.cost.rank_one import fit_rank_one


def planted(noise: float, seed: int = 0):
    generator = np.random.default_rng(seed)
    strength = np.linspace(-1, 1, 7)
    level = generator.normal(0, 2, 9)
    spread = np.exp(generator.normal(0, 0.4, 9))
    spread /= spread.mean()
    contest, model = (x.ravel() for x in np.indices((9, 7)))
    y = level[contest] + spread[contest] * strength[model]
    return y + generator.normal(0, noise, y.shape), contest, model, level, spread, strength


def test_without_noise_levels_spreads_and_strengths_are_found():
    y, contest, model, level, spread, strength = planted(0.0)
    fit = fit_rank_one(y, contest, model, 9, 7)
    np.testing.assert_allclose(fit.level, level, atol=1e-4)
    np.testing.assert_allclose(fit.spread, spread, atol=1e-4)
    np.testing.assert_allclose(fit.strength, strength, atol=1e-4)


def test_missing_cells_do_not_move_the_rest():
    y, contest, model, _, _, strength = planted(0.0)
    kept = np.random.default_rng(1).random(len(y)) < 0.7
    fit = fit_rank_one(y[kept], contest[kept], model[kept], 9, 7)
    np.testing.assert_allclose(fit.strength, strength, atol=1e-2)


def test_a_wide_contest_outweighs_a_narrow_one_of_noise():
    """Standardised values would call these two contests equals and the candidates a draw."""
    y = np.array([0.0, 1.0, 2.0, 0.02, 0.01, 0.0])
    fit = fit_rank_one(y, np.repeat([0, 1], 3), np.tile(np.arange(3), 2), 2, 3)
    assert fit.strength[0] < fit.strength[1] < fit.strength[2]


def test_a_candidate_never_tried_has_no_strength():
    fit = fit_rank_one(np.array([0.0, 1.0]), np.zeros(2, int), np.array([0, 2]), 1, 3)
    assert fit.strength[1] == 0
    assert fit.seen.tolist() == [1, 0, 1]


def test_candidates_that_never_differ_have_no_strength():
    fit = fit_rank_one(np.ones(6), np.repeat([0, 1], 3), np.tile(np.arange(3), 2), 2, 3)
    assert fit.strength == pytest.approx(np.zeros(3))
    assert fit.level == pytest.approx(np.ones(2))
