from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from app.store.vectors import FaissIndex

GENERATOR = np.random.default_rng(7)
KINDS = GENERATOR.normal(size=(100, 24))
POINTS = (KINDS[np.arange(3_000) % 100] + GENERATOR.normal(0, 0.5, (3_000, 24))).astype(np.float32)


@pytest.fixture(params=[10_000, 500], ids=["flat", "lists"])
def index(request: pytest.FixtureRequest) -> FaissIndex:
    """Made of some of the points, the others added."""
    index = FaissIndex(POINTS[:1_000], listed=request.param)
    index.add(POINTS[1_000:2_000])
    index.add(POINTS[2_000:])
    assert len(index) == 3_000
    return index


def by_brute_force(query: np.ndarray, among: np.ndarray | None = None) -> np.ndarray:
    order = np.argsort(np.linalg.norm(POINTS - query, axis=1))
    return order if among is None else order[np.isin(order, among)]


def recall(index: FaissIndex, among: np.ndarray | None = None) -> float:
    queries = POINTS[:600:30] + np.float32(0.01)
    shared = [
        len(set(index.search(q, 10, among)) & set(by_brute_force(q, among)[:10])) for q in queries
    ]
    return float(np.mean(shared)) / 10


def test_the_nearest_points_are_found(index: FaissIndex) -> None:
    assert recall(index) > (0.95 if index.has_lists else 0.999)
    for row in (0, 1_500, 2_999):
        assert index.search(POINTS[row], 1).tolist() == [row]


def test_a_search_among_some_finds_only_those(index: FaissIndex) -> None:
    among = np.arange(5, 3_000, 90)
    found = index.search(POINTS[0], 10, among)
    assert len(found) == 10
    assert set(found) <= set(among)
    assert recall(index, among) > (0.95 if index.has_lists else 0.999)
    assert index.search(POINTS[0], 5, np.array([2_999])).tolist() == [2_999]


def test_asking_for_more_than_there_are_gives_each_once(index: FaissIndex) -> None:
    found = index.search(POINTS[0], 10_000)
    assert sorted(found) == list(range(3_000))


def test_one_that_was_made_for_fewer_points_is_outgrown() -> None:
    flat = FaissIndex(POINTS[:400], listed=500)
    assert not flat.outgrown
    flat.add(POINTS[400:600])
    assert flat.outgrown
    lists = FaissIndex(POINTS[:600], listed=500)
    assert lists.has_lists
    assert not lists.outgrown
    lists.add(POINTS[:1_800])
    assert lists.outgrown


def test_what_was_written_is_read_and_what_is_torn_is_not(tmp_path: Path) -> None:
    path = tmp_path / "index"
    made = FaissIndex(POINTS, listed=500)
    made.write(path)
    read = FaissIndex.read(path)
    assert read is not None
    np.testing.assert_array_equal(read.search(POINTS[3], 50), made.search(POINTS[3], 50))
    path.write_bytes(path.read_bytes()[:-1_000])
    assert FaissIndex.read(path) is None
    assert FaissIndex.read(tmp_path / "nothing") is None
