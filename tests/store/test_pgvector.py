"""Indexes in the database: whole at every moment, whoever adds, deletes, builds or dies meanwhile.

That their answers are right is asked in `test_congruence`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import func, select, text, update

from app.embedding.distance import METRICS, Ranker
from app.embedding.parts import Population, row_of
from app.errors import DifferentSpaces, Unavailable
from app.store import embeddings, pgvector, points, reference, tasks
from app.store.indexes import FaissIndexes, open_indexes
from app.store.parts_index import parts_key
from app.store.pgvector import PgvectorIndexes
from app.store.search import Unindexed, Visible
from app.store.session import Database
from app.store.tables import SearchIndex, Task, now
from app.store.tasks import seen_in
from tests.engines import emptied
from tests.store.conftest import MIGRATIONS
from tests.store.samples import make_embedding, ready_task
from tests.store.test_indexes import EPSILON, POPULATION

OTHER = Population(POPULATION.label + np.float32(0.5), POPULATION.domain)


@pytest.fixture
def database(postgresql: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    database = Database(emptied(postgresql))
    database.migrate(MIGRATIONS)
    monkeypatch.setattr(reference, "population", lambda *_: POPULATION)
    yield database
    database.dispose()


@pytest.fixture
def indexes(database: Database, tmp_path: Path) -> PgvectorIndexes:
    found = open_indexes("auto", tmp_path / "index", database)
    assert isinstance(found, PgvectorIndexes)
    return found


def fill(database: Database, *seeds: int, space_id: str = "space") -> list[Task]:
    with database.session() as session:
        made = [make_embedding(seed, space_id=space_id) for seed in seeds]
        return [ready_task(session, embedding) for embedding in made]


def build(
    database: Database, indexes: PgvectorIndexes, population: Population | None = POPULATION
) -> None:
    with database.session(read_only=True) as session:
        indexes.followed(session, "space", population)
    indexes.wait()


def every_index(database: Database) -> list[SearchIndex]:
    with database.session(read_only=True) as session:
        return list(session.scalars(select(SearchIndex).order_by(SearchIndex.seq)))


def held(database: Database, index: SearchIndex) -> list[int]:
    with database.session(read_only=True) as session:
        table = points.points_of(session, index)
        return sorted(session.scalars(select(table.c.embedding_seq)))


def lag(database: Database, indexes: PgvectorIndexes) -> dict[tuple[str, str], int]:
    with database.session(read_only=True) as session:
        return indexes.behind(session)


def present(database: Database) -> list[int]:
    with database.session(read_only=True) as session:
        return [seq for seq, _ in embeddings.added(session, "space", 0)]


def ask(database: Database, indexes: PgvectorIndexes, seed: int) -> tuple[list[int], Unindexed]:
    with database.session(read_only=True) as session:
        ranker = Ranker.of(
            row_of(make_embedding(seed)), "combined", epsilon=EPSILON, population=POPULATION
        )
        visible = Visible("acme", seen_in("acme", "space"))
        search, unindexed = indexes.searching(session, "space", ranker, visible, 100)
        return search(10, False).seqs.tolist(), unindexed


def nearest_seqs(database: Database, indexes: PgvectorIndexes, seed: int) -> list[int]:
    seqs, unindexed = ask(database, indexes, seed)
    assert unindexed == Unindexed()
    return seqs


def test_the_first_search_has_an_index_made_and_ranks_without_it(
    database: Database, indexes: PgvectorIndexes
) -> None:
    with pytest.raises(DifferentSpaces):
        ask(database, indexes, 0)
    made = [task.embedding_seq for task in fill(database, 0, 1, 2)]
    assert ask(database, indexes, 0) == ([], Unindexed(tuple(made), 3))
    [index] = every_index(database)
    assert index.completed_at is not None
    assert held(database, index) == made
    assert sorted(nearest_seqs(database, indexes, 0)) == made
    assert len(every_index(database)) == 1


def test_an_embedding_is_found_from_the_commit_that_adds_it_to_the_one_that_deletes_it(
    database: Database, indexes: PgvectorIndexes
) -> None:
    fill(database, 0, 1)
    build(database, indexes)
    with database.session() as session:
        task = ready_task(session, make_embedding(7))
        assert task.embedding_seq not in nearest_seqs(database, indexes, 7)
    assert nearest_seqs(database, indexes, 7)[0] == task.embedding_seq
    with database.session() as session:
        tasks.delete_task(session, tasks.get_own_task(session, "acme", task.id))
        assert nearest_seqs(database, indexes, 7)[0] == task.embedding_seq
    assert task.embedding_seq not in nearest_seqs(database, indexes, 7)


def test_what_is_rolled_back_leaves_no_points(database: Database, indexes: PgvectorIndexes) -> None:
    fill(database, 0, 1)
    build(database, indexes)
    with pytest.raises(ZeroDivisionError), database.session() as session:
        ready_task(session, make_embedding(7))
        raise ZeroDivisionError
    [index] = every_index(database)
    assert held(database, index) == present(database)


def test_of_many_embeddings_an_index_is_made_beside_the_search(
    database: Database, indexes: PgvectorIndexes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pgvector, "AT_ONCE", 4)
    monkeypatch.setattr(pgvector, "RANKED_UNINDEXED", 3)
    made = [task.embedding_seq for task in fill(database, *range(9))]
    assert ask(database, indexes, 0) == ([], Unindexed(tuple(made[:3]), 9))
    indexes.wait()
    assert sorted(nearest_seqs(database, indexes, 0)) == made
    assert held(database, every_index(database)[0]) == made


def test_what_comes_and_goes_while_an_index_is_made_is_in_it_at_the_end(
    database: Database, indexes: PgvectorIndexes, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *_ = fill(database, 0, 1, 2)
    make_graphs = points.make_graphs

    def while_graphs_are_made(*asked: object) -> None:
        make_graphs(*asked)
        fill(database, 3)
        with database.session() as session:
            tasks.delete_task(session, tasks.get_own_task(session, "acme", first.id))

    monkeypatch.setattr(points, "make_graphs", while_graphs_are_made)
    build(database, indexes)
    [index] = every_index(database)
    assert held(database, index) == present(database)
    assert len(present(database)) == 3


def test_what_a_killed_builder_left_is_dropped_by_the_next(
    database: Database,
    indexes: PgvectorIndexes,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    fill(database, 0, 1)
    with monkeypatch.context() as patch, caplog.at_level(logging.ERROR):
        patch.setattr(points, "make_graphs", lambda session, _: session.execute(text("SELECT 1/0")))
        build(database, indexes)
    assert "index.behind" in caplog.text
    [torn] = every_index(database)
    assert torn.completed_at is None
    fill(database, 2)  # which knows nothing of it
    assert len(held(database, torn)) == 2
    assert lag(database, indexes) == {("space", "parts"): 1}
    build(database, indexes)
    assert lag(database, indexes) == {}
    [index] = every_index(database)
    assert index.id != torn.id
    assert held(database, index) == present(database)
    with database.session(read_only=True) as session:
        torn_table = select(func.to_regclass(f"search_points_{torn.id}"))
        assert session.scalar(torn_table) is None


def test_an_index_that_another_process_makes_is_not_made_twice(
    database: Database, indexes: PgvectorIndexes, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(database, 0, 1)
    make_graphs = points.make_graphs

    def meanwhile(*asked: object) -> None:
        monkeypatch.setattr(points, "make_graphs", make_graphs)
        build(database, PgvectorIndexes(database))
        make_graphs(*asked)

    monkeypatch.setattr(points, "make_graphs", meanwhile)
    build(database, indexes)
    assert len(every_index(database)) == 1


def test_other_axes_are_looked_for_once_there_are_many_times_as_many(
    database: Database, indexes: PgvectorIndexes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pgvector, "REFITTED", 2)
    fill(database, 0, 1, 2)
    build(database, indexes)
    fill(database, *range(3, 7))
    assert sorted(nearest_seqs(database, indexes, 0)) == present(database)  # by the first one
    indexes.wait()
    first, second = every_index(database)
    assert (first.fitted, second.fitted) == (3, 7)
    fill(database, 9)
    for index in (first, second):  # a search that began before may still be at the first
        assert held(database, index) == present(database)
    with database.session() as session:
        assert pgvector.sweep(session, searched=True) == 0
        session.execute(update(SearchIndex).values(completed_at=now() - timedelta(hours=2)))
    with database.session() as session:
        assert pgvector.sweep(session, searched=True) == 1
    assert [index.id for index in every_index(database)] == [second.id]
    assert nearest_seqs(database, indexes, 9)[0] == present(database)[-1]


def test_an_index_of_another_library_goes_with_it(
    database: Database, indexes: PgvectorIndexes
) -> None:
    fill(database, 0, 1)
    for population in (None, OTHER, POPULATION):
        build(database, indexes, population)
    with database.session() as session:
        assert pgvector.sweep(session, searched=True) == 1
    kinds = [index.key for index in every_index(database)]
    assert kinds == ["logs", parts_key(POPULATION)]
    with database.session() as session:
        assert pgvector.sweep(session, searched=False) == 2
    fill(database, 2)
    assert every_index(database) == []


@pytest.mark.parametrize("metric", METRICS)
def test_a_graph_serves_every_metric(
    database: Database, indexes: PgvectorIndexes, metric: str
) -> None:
    fill(database, *range(12))
    of_parts = METRICS[metric].compares == "parts"
    build(database, indexes, POPULATION if of_parts else None)
    asked = make_embedding(4)
    ranker = Ranker.of(
        row_of(asked) if of_parts else asked.vector,
        metric,
        epsilon=EPSILON,
        trivial=0.5,
        population=POPULATION,
    )
    with database.session(read_only=True) as session:
        # So few would be compared one by one otherwise.
        for way in ("seqscan", "sort", "bitmapscan"):
            session.execute(text(f"SET LOCAL enable_{way} = off"))
        visible = Visible("acme", seen_in("acme", "space"))
        search, _ = indexes.searching(session, "space", ranker, visible, 2)
        found = search(1, False)
        session.execute(select(func.pg_stat_force_next_flush()))
    assert present(database)[4] in found.seqs.tolist()
    graph = {"label": "label", "domain": "domain", "discriminant": "discriminants"}
    [index] = every_index(database)
    with database.session(read_only=True) as session:
        used = session.scalars(
            text(
                "SELECT indexrelname FROM pg_stat_user_indexes "
                "WHERE idx_scan > 0 AND relname = :name AND indexrelname !~ '_(pkey|tenant)$'"
            ),
            {"name": f"search_points_{index.id}"},
        ).all()
    assert used == [f"search_points_{index.id}_{graph.get(metric, 'all')}"]


def test_maps_have_the_same_points_and_neighbours_as_from_an_index_on_disk(
    database: Database, indexes: PgvectorIndexes, tmp_path: Path
) -> None:
    seqs = np.array([task.embedding_seq for task in fill(database, *range(20))])
    for population in (None, POPULATION):
        build(database, indexes, population)
        with database.session(read_only=True) as session:
            ours, _ = indexes.followed(session, "space", population)
            theirs, _ = FaissIndexes(tmp_path / "index").followed(session, "space", population)
        assert ours is not None
        assert theirs is not None
        between = [each.points(seqs[::-1]) @ each.points(seqs[::-1]).T for each in (ours, theirs)]
        np.testing.assert_allclose(*between, atol=0.01)
        near, on_disk = ours.nearest(seqs, 5), theirs.nearest(seqs, 5)
        shared = [
            len(set(a) & set(b)) for a, b in zip(near.tolist(), on_disk.tolist(), strict=True)
        ]
        assert np.mean(shared) > 4
        assert not (near == np.arange(20)[:, None]).any()
        onto = ours.nearest(seqs[:3], 2, onto=seqs[3:])
        assert onto.shape == (3, 2)
        with pytest.raises(KeyError):
            ours.points(np.array([10**6]))


def test_a_database_without_the_extension_is_searched_by_faiss_or_says_what_is_missing(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pgvector, "_EXTENSION", "CREATE EXTENSION IF NOT EXISTS nobody_wrote_it")
    assert isinstance(open_indexes("auto", tmp_path, database), FaissIndexes)
    with pytest.raises(Unavailable, match="pgvector"):
        open_indexes("pgvector", tmp_path, database)


def test_faiss_may_be_chosen_and_nothing_is_kept_for_pgvector(
    database: Database, tmp_path: Path
) -> None:
    chosen = open_indexes("faiss", tmp_path, database)
    assert isinstance(chosen, FaissIndexes)
    fill(database, 0)
    with database.session(read_only=True) as session:
        chosen.by_parts(session, "space", POPULATION)
    assert every_index(database) == []
