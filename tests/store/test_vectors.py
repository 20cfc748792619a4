from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from app.embedding.distance import COMBINED, METRICS, one_to_many
from app.embedding.parts import Parts, Population, row_of
from app.errors import DifferentSpaces, InvalidRequest
from app.store import embeddings, tasks
from app.store.session import Database
from app.store.vectors import FaissIndex, IndexCache, centred_logs
from tests.store.samples import make_embedding, ready_task

EPSILON = 1e-9
GENERATOR = np.random.default_rng(7)
VECTORS = np.exp(GENERATOR.normal(-4, 1.5, (60, 300))).astype(np.float32)
IDS = np.arange(100, 160)


@pytest.fixture
def index() -> FaissIndex:
    index = FaissIndex(300, partial(centred_logs, epsilon=EPSILON), seed=3)
    index.add(IDS[:20], VECTORS[:20])
    index.add(IDS[20:], VECTORS[20:])
    return index


def by_brute_force(query: int) -> np.ndarray:
    """The order that the index promises: L2 over projections of centred log-embeddings."""
    logs = np.log2(VECTORS.astype(np.float64) + EPSILON)
    centred = logs - logs.mean(axis=1, keepdims=True)
    projection = np.random.default_rng(3).standard_normal((300, 256), dtype=np.float32)
    return IDS[np.argsort(np.linalg.norm((centred - centred[query]) @ projection, axis=1))]


@pytest.mark.parametrize("query", [0, 21, 59])
def test_a_search_gives_the_order_of_brute_force(index: FaissIndex, query: int) -> None:
    np.testing.assert_array_equal(index.search(VECTORS[query], 10), by_brute_force(query)[:10])


def test_scale_does_not_move_a_task_away_from_itself(index: FaissIndex) -> None:
    assert index.search(VECTORS[5] * 30, 1).tolist() == [105]


def test_a_search_among_some_finds_only_those(index: FaissIndex) -> None:
    among = np.array([150, 103, 110])
    found = index.search(VECTORS[0], 10, among)
    assert sorted(found) == sorted(among)
    expected = [seq for seq in by_brute_force(0) if seq in among]
    assert found.tolist() == expected


def test_removed_ids_are_not_found_and_asking_for_more_gives_all(index: FaissIndex) -> None:
    index.remove(np.array([100, 101, 999]))
    found = index.search(VECTORS[0], 500)
    assert sorted(found) == sorted(IDS[2:])
    assert sorted(index.ids) == sorted(IDS[2:])


def test_the_cache_follows_the_database(database: Database) -> None:
    indexes = IndexCache()

    def held(space_id: str = "space") -> list[int]:
        with database.session(read_only=True) as session:
            return sorted(indexes.sync(session, space_id).ids.tolist())

    with pytest.raises(DifferentSpaces):
        held()
    with database.session() as session:
        made = [ready_task(session, make_embedding(seed)) for seed in range(3)]
        ready_task(session, make_embedding(9, space_id="elsewhere"))
    seqs = [task.embedding_seq for task in made]
    assert held() == seqs
    with database.session() as session:
        tasks.delete_task(session, tasks.get_own_task(session, "acme", made[0].id))
        added = ready_task(session, make_embedding(4))
    assert held() == [*seqs[1:], added.embedding_seq]
    assert len(held("elsewhere")) == 1


def test_metrics_on_vectors_share_an_index_and_those_on_parts_have_one_each(
    database: Database,
) -> None:
    made = [make_embedding(seed) for seed in range(6)]
    rows = np.stack([row_of(each) for each in made])
    population = Population.of(rows[:, :48], EPSILON)
    with database.session() as session:
        seqs = [ready_task(session, embedding).embedding_seq for embedding in made]
    indexes = IndexCache()
    with database.session(read_only=True) as session:
        found = {name: indexes.sync(session, "space", name, population) for name in METRICS}
        assert indexes.sync(session, "space", "label", population) is found["label"]
    on_vectors = [name for name, metric in METRICS.items() if metric.compares == "vector"]
    assert len({id(found[name]) for name in on_vectors}) == 1
    assert len({id(index) for index in found.values()}) == 1 + len(METRICS) - len(on_vectors)
    for name, metric in METRICS.items():
        for seq, row in zip(seqs, rows, strict=True):
            asked = row[: 24 if metric.compares == "vector" else None]
            assert found[name].search(asked, 1).tolist() == [seq]


def test_an_index_of_parts_proposes_what_is_near_by_their_metric(database: Database) -> None:
    made = [make_embedding(seed) for seed in range(40)]
    rows = np.stack([row_of(each) for each in made])
    population = Population.of(rows[:, :48], EPSILON)
    with database.session() as session:
        seqs = np.array([ready_task(session, embedding).embedding_seq for embedding in made])
    with database.session(read_only=True) as session:
        index = IndexCache().sync(session, "space", "combined", population)
    exact = one_to_many(rows[0], rows, "combined", epsilon=EPSILON, population=population)
    unit = Parts.of(rows, EPSILON, population).points(COMBINED)
    seed = int.from_bytes(b"space")
    projection = np.random.default_rng(seed).standard_normal((unit.shape[1], 256), dtype=np.float32)
    projected = np.linalg.norm((unit - unit[0]) @ projection, axis=1)
    found = index.search(rows[0], 40)
    np.testing.assert_array_equal(found, seqs[np.argsort(projected)])
    assert set(seqs[np.argsort(exact)[:5]]) <= set(found[:20])


def test_another_population_makes_another_index(database: Database) -> None:
    made = [make_embedding(seed) for seed in range(4)]
    rows = np.stack([row_of(each) for each in made])
    with database.session() as session:
        for embedding in made:
            ready_task(session, embedding)
    indexes = IndexCache()
    with database.session(read_only=True) as session:
        before, same, after = (
            indexes.sync(session, "space", "combined", Population.of(rows[:n, :48], EPSILON))
            for n in (3, 3, 4)
        )
        logs = indexes.sync(session, "space", "cosine", Population.of(rows[:, :48], EPSILON))
        assert indexes.sync(session, "space", "cosine") is logs
    assert same is before
    assert after is not before
    assert sorted(after.ids) == sorted(before.ids)


def test_an_index_of_parts_needs_a_population(database: Database) -> None:
    with database.session() as session:
        ready_task(session, make_embedding())
    indexes = IndexCache()
    for _ in range(2):  # the second time as well
        with (
            database.session(read_only=True) as session,
            pytest.raises(InvalidRequest) as caught,
        ):
            indexes.sync(session, "space", "combined")
        assert caught.value.code == "population-unknown"


def test_what_is_stored_comes_back_bit_for_bit(database: Database) -> None:
    embedding = make_embedding()
    with database.session() as session:
        row = embeddings.add(session, "acme", "recipe", embedding)
        assert embeddings.add(session, "acme", "recipe", make_embedding(1)).seq == row.seq
    with database.session(read_only=True) as session:
        stored = embeddings.load(session, row.seq)
    assert stored.provenance == embedding.provenance
    assert (stored.space_id, stored.epsilon) == ("space", embedding.epsilon)
    for name in ("vector", "domain", "discriminants", "draw_error", "sampling_error"):
        np.testing.assert_array_equal(getattr(stored, name), getattr(embedding, name))


def test_a_matrix_keeps_the_order_asked_for(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embeddings, "_CHUNK_ROWS", 2)
    made = [make_embedding(seed) for seed in range(4)]
    with database.session() as session:
        seqs = [embeddings.add(session, "acme", str(n), made[n]).seq for n in range(4)]
    order = [3, 0, 0, 2, 1]
    with database.session(read_only=True) as session:
        vectors = embeddings.matrix(session, [seqs[n] for n in order])
        whole = embeddings.matrix(session, [seqs[n] for n in order], "parts")
    np.testing.assert_array_equal(vectors, [made[n].vector for n in order])
    np.testing.assert_array_equal(whole, [row_of(made[n]) for n in order])


def test_a_matrix_of_nothing_is_empty(database: Database) -> None:
    with database.session(read_only=True) as session:
        assert embeddings.matrix(session, []).shape == (0, 0)
