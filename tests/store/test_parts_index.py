from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select

from app.embedding import codes
from app.embedding.codes import CodedParts
from app.embedding.distance import METRICS
from app.embedding.parts import Parts, Population
from app.settings import shared_directory
from app.store import embeddings, parts_index, reference
from app.store.embeddings import Space
from app.store.parts_index import PartsIndex
from app.store.session import Database
from app.store.space_index import EXHAUSTIVE, FAR
from app.store.tables import Embedding
from tests.embedding.test_codes import PARTS_METRICS, one
from tests.store.conftest import MIGRATIONS

SPACE = Space(dimensions=40, responses=12, epsilon=1e-9)


def clustered(count: int, seed: int = 0) -> np.ndarray:
    """Rows of tasks of so many kinds that each has some near it and many that are not."""
    generator = np.random.default_rng(seed)
    kinds = np.random.default_rng(99).normal(-4, 1.5, (60, 80))
    axes = np.random.default_rng(98).normal(size=(60, 48))
    kind = generator.integers(0, 60, count)
    logs = kinds[kind] + generator.normal(0, 0.5, (count, 80))
    return np.concatenate(
        [np.exp(logs), axes[kind] + generator.normal(0, 0.4, (count, 48))], axis=1
    ).astype(np.float32)


ROWS = clustered(EXHAUSTIVE + 600)
POPULATION = Population.of(ROWS[:, :80], SPACE.epsilon)
PARTS = Parts.of(ROWS, SPACE.epsilon, POPULATION)
SEQS = np.arange(len(ROWS)) * 2 + 1  # seqs are not row numbers


def make(directory: Path, count: int = len(ROWS), at_once: int = 1_000) -> PartsIndex:
    index = PartsIndex(directory, SPACE, POPULATION)
    for start in range(0, count, at_once):
        stop = min(start + at_once, count)
        take_in(index, start, stop)
    return index


def take_in(index: PartsIndex, start: int, stop: int) -> None:
    seqs = SEQS[start:stop]
    with index.shelf.writing():
        index.take_in(seqs.tolist(), seqs, ROWS[start:stop], int(seqs[-1]))


def fitted(index: PartsIndex) -> PartsIndex:
    with index.shelf.writing():
        index.fit()
    return index


def exact_order(row: int, metric: str, among: np.ndarray) -> np.ndarray:
    likeness = PARTS.alike(one(PARTS, row), METRICS[metric].weights)[among, 0]
    return SEQS[among[np.argsort(-likeness, kind="stable")]]


def recall(index: PartsIndex, metric: str, among: np.ndarray | None = None) -> float:
    rows = np.arange(len(index.seqs())) if among is None else among
    shared = []
    for row in range(0, 2_000, 130):
        found = index.search(
            one(PARTS, row), METRICS[metric].weights, 50, None if among is None else SEQS[among]
        )
        shared.append(len(set(found.seqs[:10]) & set(exact_order(row, metric, rows)[:10])) / 10)
    return float(np.mean(shared))


def test_few_tasks_are_all_compared(tmp_path: Path) -> None:
    index = make(tmp_path / "index", 300)
    found = index.search(one(PARTS, 7), METRICS["combined"].weights, 20)
    assert found.exhaustive
    assert found.seqs[0] == SEQS[7]
    assert (np.diff(found.likeness) <= 0).all()
    likeness = PARTS.alike(one(PARTS, 7), METRICS["combined"].weights)
    np.testing.assert_allclose(found.likeness, likeness[(found.seqs - 1) // 2, 0], atol=codes.ERROR)


@pytest.mark.parametrize("metric", PARTS_METRICS)
def test_of_many_the_nearest_are_proposed(tmp_path: Path, metric: str) -> None:
    index = make(tmp_path / "index")
    assert index.needs_fit
    before = index.search(one(PARTS, 7), METRICS[metric].weights, 10)
    fitted(index)
    assert not index.needs_fit
    after = index.search(one(PARTS, 7), METRICS[metric].weights, 10)
    assert not before.exhaustive
    assert not after.exhaustive
    assert before.seqs[0] == after.seqs[0] == SEQS[7]
    assert recall(index, metric) > 0.94


def test_a_search_among_some_finds_only_those(tmp_path: Path) -> None:
    index = fitted(make(tmp_path / "index"))
    few, many = np.arange(3, 1_000, 7), np.arange(0, EXHAUSTIVE + 500)
    assert recall(index, "combined", few) > 0.99
    assert recall(index, "combined", many) > 0.97
    found = index.search(one(PARTS, 0), METRICS["combined"].weights, 50, SEQS[many])
    assert set(found.seqs) <= set(SEQS[many])
    assert not found.exhaustive


def test_what_is_removed_is_not_found_any_more(tmp_path: Path) -> None:
    index = fitted(make(tmp_path / "index"))
    with index.shelf.writing():
        index.remove([int(SEQS[7]), 4, 10_000_000], buried=3)
    for each in (index, PartsIndex(tmp_path / "index", SPACE, POPULATION)):
        found = each.search(one(PARTS, 7), METRICS["combined"].weights, 50)
        assert SEQS[7] not in found.seqs
        assert len(found.seqs) > 40
        assert each.shelf.manifest.buried == 3


def test_equally_near_tasks_stand_by_age(tmp_path: Path) -> None:
    index = PartsIndex(tmp_path / "index", SPACE, POPULATION)
    with index.shelf.writing():
        index.take_in([9, 4, 6], np.zeros(3, np.int64), ROWS[[5, 5, 5]], 9)
    found = index.search(one(PARTS, 5), METRICS["combined"].weights, 3)
    assert found.seqs.tolist() == [4, 6, 9]


def test_what_one_process_takes_in_and_fits_serves_the_others(tmp_path: Path) -> None:
    one_process = make(tmp_path / "index", EXHAUSTIVE + 100)
    other = PartsIndex(tmp_path / "index", SPACE, POPULATION)
    weights = METRICS["combined"].weights
    other.search(one(PARTS, 7), weights, 5)
    fitted(one_process)
    take_in(one_process, EXHAUSTIVE + 100, EXHAUSTIVE + 600)
    assert other.shelf.refresh()
    late = EXHAUSTIVE + 550
    for index in (one_process, other):
        assert index.search(one(PARTS, late), weights, 5).seqs[0] == SEQS[late]
        assert recall(index, "combined") > 0.97


def test_lost_axes_are_found_anew(tmp_path: Path) -> None:
    fitted(make(tmp_path / "index"))
    for path in (tmp_path / "index").glob("projection-*"):
        path.write_bytes(b"torn")
    index = PartsIndex(tmp_path / "index", SPACE, POPULATION)
    weights = METRICS["combined"].weights
    assert index.search(one(PARTS, 7), weights, 5).seqs[0] == SEQS[7]
    assert index.needs_fit
    assert recall(fitted(index), "combined") > 0.97
    assert not index.needs_fit


def test_lists_are_kept_for_the_next_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def listed(points: np.ndarray) -> object:
        made.append(len(points))
        return original(points, listed=1_000)

    made: list[int] = []
    original = parts_index.FaissIndex
    listed.read = original.read  # type: ignore[attr-defined]
    monkeypatch.setattr(parts_index, "FaissIndex", listed)
    assert recall(fitted(make(tmp_path / "index")), "combined") > 0.97
    again = PartsIndex(tmp_path / "index", SPACE, POPULATION)
    assert recall(again, "combined") > 0.97
    assert made == [len(ROWS)]


@pytest.mark.parametrize("metric", PARTS_METRICS)
def test_codes_of_the_reference_library_are_as_near_as_they_say(
    library: tuple[Parts, np.ndarray], metric: str
) -> None:
    parts, every = library
    weights, coded = METRICS[metric].weights, CodedParts.of(parts)
    exact = parts.alike(parts, weights)
    found = np.stack([coded.alike(one(parts, row), weights, every) for row in every])
    assert np.abs(found - exact).max() < codes.ERROR


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> tuple[Parts, np.ndarray]:
    database = Database(f"sqlite:///{tmp_path_factory.mktemp('library')}/store.sqlite")
    database.migrate(MIGRATIONS)
    with database.session() as session:
        count = reference.load_reference(session, shared_directory("models"))
        space_id = session.scalars(select(Embedding.space_id)).first() or ""
        seqs = [seq for seq, _ in embeddings.added(session, space_id, 0)]
        space = embeddings.get_space(session, space_id)
        rows = embeddings.matrix(session, seqs, "parts")
        parts = Parts.of(rows, space.epsilon, reference.population(session, space_id))
    database.dispose()
    return parts, np.arange(count)


def test_rows_of_what_is_gone_hold_nothing_and_stand_in_nobodys_way(tmp_path: Path) -> None:
    index = fitted(make(tmp_path / "index"))
    gone = np.arange(len(ROWS)) % 4 == 0
    with index.shelf.writing():
        index.remove(SEQS[gone], 1)
        assert not any(
            index.shelf.column(name)[gone].any() for name in ("codes", "scales", "marks")
        )
        assert (index.shelf.column("points")[gone] == FAR).all()
        index.fit()
    assert (index.shelf.column("points")[gone] == FAR).all()
    assert (index.shelf.column("points")[~gone] != FAR).any(axis=1).all()
    live = np.flatnonzero(~gone)
    shared = []
    for row in range(0, 2_000, 130):
        found = index.search(one(PARTS, row), METRICS["combined"].weights, 50)
        shared.append(len(set(found.seqs[:10]) & set(exact_order(row, "combined", live)[:10])))
    assert np.mean(shared) > 9.5
