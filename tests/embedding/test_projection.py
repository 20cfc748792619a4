from __future__ import annotations

import numpy as np
import pytest

from app.embedding.distance import METRICS
from app.embedding.parts import Parts, Weights
from app.embedding.projection import DIMENSIONS, FINEST, SKETCH, Projection, unit, weighed
from tests.embedding.test_codes import PARTS_METRICS, made_up, one

FEW = DIMENSIONS[min(DIMENSIONS)]


def floats(parts: Parts) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    label, domain, axes = (
        array.astype(np.float32) for array in (parts.label, parts.domain, parts.discriminants)
    )
    return label, domain, axes


def test_fewer_tasks_than_axes_keep_their_inner_products() -> None:
    """Twenty tasks span twenty dimensions: nothing of them lies outside the axes."""
    parts = made_up(20)
    projection = Projection.of(*floats(parts), tasks=20)
    points = projection.points_of(parts)
    assert points.shape == (20, FEW.total)
    label = points[:, : FEW.label]
    np.testing.assert_allclose(label @ label.T, parts.label @ parts.label.T, atol=1e-5)
    domain = points[:, FEW.label :][:, : FEW.domain]
    np.testing.assert_allclose(domain @ domain.T, parts.domain @ parts.domain.T, atol=1e-5)


def test_sketches_stand_for_the_inner_products_of_what_they_sketch() -> None:
    parts = made_up(20)
    projection = Projection.of(*floats(parts), tasks=20)
    points = projection.points_of(parts)[:, -FEW.discriminants :]
    overlap = parts.alike(parts, Weights(discriminants=1.0)) ** 2
    assert np.abs(points @ points.T - overlap).max() < 12 / np.sqrt(SKETCH)


@pytest.mark.parametrize("metric", PARTS_METRICS)
def test_points_put_near_tasks_first(metric: str) -> None:
    weights = METRICS[metric].weights
    parts = made_up(200)
    projection = Projection.of(*floats(parts), tasks=20)
    points = weighed(projection.points_of(parts), weights, FEW)
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1, atol=1e-5)
    exact = parts.alike(parts, weights)
    for row in range(0, 200, 40):
        query = weighed(projection.points_of(one(parts, row)), weights, FEW)[0]
        proposed = np.argsort(-(points @ query))[:60]
        nearest = np.argsort(-exact[row])[:5]
        assert len(set(nearest) & set(proposed)) >= 4


def test_a_point_of_nothing_stays_at_the_origin() -> None:
    assert not unit(np.zeros((2, 3), np.float32)).any()


def test_the_more_tasks_the_finer_their_points() -> None:
    parts = made_up(30)
    for most, dimensions in DIMENSIONS.items():
        assert Projection.of(*floats(parts), tasks=most).dimensions == dimensions
    more = Projection.of(*floats(parts), tasks=max(DIMENSIONS) + 1)
    assert more.dimensions == FINEST
