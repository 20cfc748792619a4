from __future__ import annotations

import numpy as np
import pytest

from app.cost.published import RESIDUAL_SD, SLOPE, SLOPE_SD, standing

TRIED = np.array([True, True, True, False, False])
PUBLISHED = np.array([0.8, 1.0, 1.2, 1.6, np.nan])


def test_those_that_were_tried_stay_where_they_are():
    found = standing(np.array([0.0, 0.5, 1.0, 0.0, 0.0]), TRIED, PUBLISHED)
    assert not found.shift[:3].any()
    assert not found.covariance[:3].any()


def test_one_that_was_not_stands_on_the_line_with_more_doubt():
    found = standing(SLOPE * (np.array([0.8, 1.0, 1.2, 0.0, 0.0]) - 1.0), TRIED, PUBLISHED)
    assert found.shift[3] == pytest.approx(SLOPE * 0.6)
    assert found.covariance[3, 3] > RESIDUAL_SD**2
    assert found.shift[4] == 0.0
    assert not found.covariance[4].any()


def test_doubt_about_the_line_is_that_of_generalised_least_squares():
    """Sampled: slopes from their prior, candidates off the line, the line fitted to three of them;
    how two untried ones lie off their forecasts goes together."""
    random = np.random.default_rng(0)
    published = np.array([0.8, 1.0, 1.2, 1.6, 2.0])
    samples = 20_000
    slope = random.normal(SLOPE, SLOPE_SD, samples)
    truth = slope[:, None] * published + random.normal(0, RESIDUAL_SD, (samples, 5))
    found = [standing(row * TRIED, TRIED, published) for row in truth]
    missed = np.array([row - each.shift for row, each in zip(truth, found, strict=True)])
    sampled = np.cov(missed[:, 3:].T)
    np.testing.assert_allclose(found[0].covariance[3:, 3:], sampled, rtol=0.05)
    assert found[0].covariance[3, 4] > 0.5 * found[0].covariance[3, 3]


def test_many_tried_candidates_move_the_slope():
    published = np.linspace(0, 2, 101)
    tried = np.arange(101) != 100
    for slope in (0.2, 2.0):
        found = standing(slope * published * tried, tried, published)
        told = (found.shift[100] - slope * published[:100].mean()) / (2 - published[:100].mean())
        assert told == pytest.approx(slope, rel=0.15)


def test_where_nothing_is_published_nothing_is_said():
    found = standing(np.ones(5), TRIED, np.full(5, np.nan))
    assert not found.shift.any()
