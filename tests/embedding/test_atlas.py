from __future__ import annotations

import numpy as np
import pytest
from sklearn.manifold import trustworthiness

from app.embedding import atlas
from app.embedding.projection import unit

KINDS = 5
COUNT = 200
OF_KIND = np.arange(COUNT) % KINDS


def made_up(seed: int = 0, count: int = COUNT) -> np.ndarray:
    """Unit points of tasks of five kinds."""
    centres = np.random.default_rng(1).normal(size=(KINDS, 20))
    spread = np.random.default_rng(seed).normal(0, 0.35, (count, 20))
    return unit((centres[np.arange(count) % KINDS] + spread).astype(np.float32))


def nearest(points: np.ndarray, others: np.ndarray | None = None, k: int = 15) -> np.ndarray:
    likeness = points @ (points if others is None else others).T
    if others is None:
        np.fill_diagonal(likeness, -np.inf)
    return np.argsort(-likeness, axis=1)[:, :k]


POINTS = made_up()
NEIGHBOURS = nearest(POINTS)
MAP = atlas.first_map(NEIGHBOURS, POINTS)


def size_of(positions: np.ndarray) -> float:
    return float(np.sqrt(np.square(positions - positions.mean(axis=0)).sum(axis=1).mean()))


def jumps(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Of each task, in sizes of the map."""
    return np.linalg.norm(after - before, axis=1) / size_of(before)


def test_what_is_near_among_embeddings_is_near_on_the_map() -> None:
    assert atlas.trustworthiness(POINTS, MAP) > 0.95
    labels = atlas.clusters_of(MAP)
    assert labels.max() == KINDS - 1
    for kind in range(KINDS):
        assert len(set(labels[kind == OF_KIND]) - {atlas.NOWHERE}) == 1


def test_a_map_is_drawn_the_same_again() -> None:
    np.testing.assert_array_equal(atlas.first_map(NEIGHBOURS, POINTS), MAP)


def test_trustworthiness_is_that_of_the_field() -> None:
    scattered = np.random.default_rng(2).normal(size=(COUNT, 2))
    for positions in (MAP, scattered):
        found = atlas.trustworthiness(POINTS, positions, neighbours=10, sample=COUNT)
        expected = trustworthiness(POINTS, positions, n_neighbors=10, metric="cosine")
        assert found == pytest.approx(expected, abs=1e-3)


def test_new_tasks_are_placed_beside_their_nearest() -> None:
    new = made_up(seed=7, count=20)
    places = atlas.placed(nearest(new, POINTS), MAP)
    for kind, place in zip(np.arange(20) % KINDS, places, strict=True):
        near = np.argsort(np.linalg.norm(MAP - place, axis=1))[:5]
        assert (OF_KIND[near] == kind).mean() > 0.5


def test_all_settling_anew_hardly_moves_the_map() -> None:
    """After a third more tasks came: by a tenth of the map's size in the median."""
    more = np.concatenate([POINTS, made_up(seed=7, count=66)])
    start = np.concatenate([MAP, atlas.placed(nearest(more[COUNT:], POINTS), MAP)])
    after = atlas.settled(nearest(more), start)
    assert np.median(jumps(start, after)) < 0.1
    assert np.percentile(jumps(start, after), 95) < 0.4
    assert atlas.trustworthiness(more, after) > 0.95


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6])
def test_few_tasks_have_a_map_too(count: int) -> None:
    points = made_up(count=count)
    neighbours = nearest(points, k=min(15, count - 1))
    positions = atlas.first_map(neighbours, points)
    assert positions.shape == (count, 2)
    assert np.isfinite(positions).all()
    assert np.isfinite(atlas.settled(neighbours, positions)).all()
    new = made_up(seed=3, count=2)
    assert np.isfinite(atlas.placed(nearest(new, points, k=count), positions)).all()
    assert set(atlas.clusters_of(positions)) == {atlas.NOWHERE}
    assert atlas.described(atlas.clusters_of(positions), positions, [[]] * count) == []
    assert atlas.dendrogram(points, atlas.clusters_of(positions)) == []


def test_clusters_are_numbered_by_size_and_named_by_what_tells_them_apart() -> None:
    labels = np.array([0] * 6 + [1] * 4 + [atlas.NOWHERE])
    tags = [["all", "birds"]] * 5 + [["all", "odd"]] + [["all"]] * 4 + [["birds"]]
    positions = np.stack([np.arange(11.0), np.zeros(11)], axis=1)
    birds, others = atlas.described(labels, positions, tags)
    assert (birds.name, birds.tasks, birds.position) == ("birds", 6, (2.5, 0.0))
    assert dict(birds.shares) == {"birds": pytest.approx(5 / 6, abs=1e-3)}
    assert others.name == "cluster 2"  # what all have tells nothing
    nameless = atlas.described(labels, positions, [[]] * 11)
    assert [cluster.name for cluster in nameless] == ["cluster 1", "cluster 2"]


def test_the_largest_cluster_comes_first() -> None:
    generator = np.random.default_rng(0)
    sizes = [30, 60, 20]
    positions = np.concatenate(
        [generator.normal(10 * i, 0.5, (size, 2)) for i, size in enumerate(sizes)]
    )
    labels = atlas.clusters_of(positions)
    found = [int((labels == number).sum()) for number in range(3)]
    assert found == sorted(found, reverse=True)
    assert labels[40] == 0


def test_the_dendrogram_joins_what_is_nearest_first() -> None:
    axes = np.eye(3, dtype=np.float32)
    points = unit(np.stack([axes[0], axes[0] + 0.2 * axes[1], axes[2]]).repeat(4, axis=0))
    joins = atlas.dendrogram(points, np.arange(3).repeat(4))
    assert [set(join[:2]) for join in joins] == [{0, 1}, {2, 3}]
    assert joins[0][2] == pytest.approx(1 - 1 / np.sqrt(1.04), abs=1e-6)
    assert joins[1][2] == pytest.approx(1.0, abs=1e-6)
