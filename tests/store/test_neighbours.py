from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import delete

from app.embedding.distance import METRICS, one_to_many
from app.embedding.parts import Parts, Population, row_of
from app.embedding.vector import Noise, TaskEmbedding
from app.errors import DifferentSpaces, InvalidRequest
from app.store import jobs, reference, tasks
from app.store import neighbours as searched
from app.store.neighbours import Filters, Query, Ranking
from app.store.search import Indexes
from app.store.session import Database
from app.store.tables import PUBLIC, Task, now
from tests.store.samples import MORE, accept_task, make_embedding, ready_task, ship


def neighbours(*asked: Any, **how: Any) -> Ranking:
    """Asked twice: where no index was there the first time, one is now."""
    searched.neighbours(*asked, **how)
    return searched.neighbours(*asked, **how)


def names(ranking: Ranking) -> list[str]:
    return [neighbour.task.name for neighbour in ranking.neighbours]


def fill(database: Database, count: int, *, tenant: str = "acme") -> list[Task]:
    with database.session() as session:
        return [
            ready_task(session, make_embedding(seed), tenant=tenant, name=f"{tenant} {seed}")
            for seed in range(count)
        ]


def with_library(database: Database, directory: Path, seeds: range) -> Population:
    """The population that a library of those made-up tasks brings."""
    ship(directory, {f"shipped {seed}": make_embedding(seed) for seed in seeds})
    with database.session() as session:
        reference.load_reference(session, directory)
        population = reference.population(session, "space")
    assert population is not None
    return population


@pytest.mark.parametrize("metric", sorted(METRICS.keys() - {"asymmetric"}))
def test_neighbours_are_those_of_exhaustive_exact_ranking(
    database: Database, indexes: Indexes, metric: str, tmp_path: Path
) -> None:
    made = fill(database, 12)
    population = with_library(database, tmp_path, range(100, 103))
    rows = np.stack([row_of(make_embedding(seed)) for seed in range(12)])
    if METRICS[metric].compares == "vector":
        rows = rows[:, :24]
    expected = one_to_many(rows[0], rows, metric, epsilon=1e-9, population=population)
    with database.session() as session:  # whose tasks are not what this is about
        session.execute(delete(Task).where(Task.tenant == PUBLIC))
    with database.session() as session:
        ranking = neighbours(
            session,
            indexes,
            "acme",
            made[0].embedding_seq or 0,
            k=5,
            metric=metric,
            search_candidates=100,
        )
    order = np.argsort(expected, kind="stable")[:5]
    assert names(ranking) == [f"acme {seed}" for seed in order]
    np.testing.assert_allclose([n.distance for n in ranking.neighbours], expected[order])
    assert (ranking.exact, ranking.unindexed, ranking.metric) == (True, 0, metric)


@pytest.mark.parametrize("search_candidates", [100, 8], ids=["exact", "index"])
def test_the_default_metric_is_combined_where_the_space_has_a_population(
    database: Database, indexes: Indexes, tmp_path: Path, search_candidates: int
) -> None:
    fill(database, 12)

    def nearest(metric: str | None = None) -> Ranking:
        with database.session() as session:
            return neighbours(
                session,
                indexes,
                "acme",
                make_embedding(4),
                k=3,
                metric=metric,
                search_candidates=search_candidates,
            )

    before = nearest()
    population = with_library(database, tmp_path, range(100, 103))
    after = nearest()
    assert (before.metric, after.metric) == ("cosine", "combined")
    assert names(after) == names(nearest("combined"))
    assert names(after)[0] == "acme 4"
    assert {neighbour.noise_floor for neighbour in after.neighbours} == {None}
    seeds = [int(name.split()[-1]) for name in names(after)]
    expected = one_to_many(
        row_of(make_embedding(4)),
        np.stack([row_of(make_embedding(seed)) for seed in seeds]),
        "combined",
        epsilon=1e-9,
        population=population,
    )
    np.testing.assert_allclose(  # the library's own are kept rounded
        [neighbour.distance for neighbour in after.neighbours], expected, atol=0.01
    )


def test_tenants_see_their_own_and_the_library_only(database: Database, indexes: Indexes) -> None:
    for tenant in ("acme", "rival", PUBLIC):
        fill(database, 3, tenant=tenant)
    for search_candidates in (100, 1):
        with database.session() as session:
            ranking = neighbours(
                session,
                indexes,
                "acme",
                make_embedding(50),
                k=100,
                search_candidates=search_candidates,
            )
        assert {neighbour.task.tenant for neighbour in ranking.neighbours} == {"acme", PUBLIC}
        assert len(ranking.neighbours) == 6


def test_a_task_with_the_same_bytes_stands_at_distance_zero(
    database: Database, indexes: Indexes
) -> None:
    with database.session() as session:
        task = ready_task(session, make_embedding(1), recipe="same", name="first")
        ready_task(session, make_embedding(1), recipe="same", name="second")
        ready_task(session, make_embedding(1), recipe="same", name="third")
        ready_task(session, make_embedding(2), name="other")
    assert task.embedding_seq is not None
    with database.session() as session:
        ranking = neighbours(
            session,
            indexes,
            "acme",
            task.embedding_seq,
            k=3,
            filters=Filters(exclude_task=task.id),
            search_candidates=100,
        )
    assert names(ranking) == ["second", "third", "other"]
    assert [neighbour.distance for neighbour in ranking.neighbours[:2]] == pytest.approx([0, 0])


def test_only_embedded_tasks_that_are_kept_are_neighbours(
    database: Database, indexes: Indexes
) -> None:
    made = fill(database, 3)
    with database.session() as session:
        accept_task(session, name="not embedded yet")
        tasks.get_own_task(session, "acme", made[1].id).expires_at = now()
    with database.session() as session:
        ranking = neighbours(
            session, indexes, "acme", make_embedding(9), k=10, search_candidates=100
        )
    assert sorted(names(ranking)) == ["acme 0", "acme 2"]


def test_a_task_stays_a_neighbour_while_more_images_of_it_are_embedded(
    database: Database, indexes: Indexes
) -> None:
    made = fill(database, 3)
    with database.session() as session:
        queued, embedding = (
            tasks.add_images(session, tasks.get_own_task(session, "acme", task.id), MORE)
            for task in made[:2]
        )
        jobs.start_job(session, embedding.id, max_attempts=3)
        assert (queued.task.status, embedding.task.status) == ("queued", "embedding")
    with database.session() as session:
        ranking = neighbours(
            session, indexes, "acme", make_embedding(9), k=10, search_candidates=100
        )
    assert sorted(names(ranking)) == ["acme 0", "acme 1", "acme 2"]


def test_a_tag_narrows_the_search(database: Database, indexes: Indexes) -> None:
    fill(database, 3)
    with database.session() as session:
        ready_task(session, make_embedding(7), name="tagged", tags=("glyphs", "flags"))
    for search_candidates in (100, 1):
        with database.session() as session:
            ranking = neighbours(
                session,
                indexes,
                "acme",
                make_embedding(9),
                k=10,
                filters=Filters(tag="glyphs"),
                search_candidates=search_candidates,
            )
        assert names(ranking) == ["tagged"]


def test_more_tasks_than_are_compared_are_proposed_and_the_answer_says_so(
    database: Database, indexes: Indexes
) -> None:
    fill(database, 30)
    near = replace(make_embedding(4), vector=make_embedding(4).vector * np.float32(1.01))
    with database.session() as session:
        few, every = (
            neighbours(session, indexes, "acme", near, k=2, search_candidates=count)
            for count in (10, 30)
        )
    assert (few.exact, every.exact) == (False, True)
    assert names(few)[0] == names(every)[0] == "acme 4"
    assert few.neighbours[0].distance == every.neighbours[0].distance


def test_the_noise_floor_of_a_pair_is_the_larger_one(database: Database, indexes: Indexes) -> None:
    with database.session() as session:
        ready_task(session, make_embedding(1, noise_floor=0.2), name="noisy")
        ready_task(session, make_embedding(2, noise_floor=0.001), name="quiet")
    with database.session() as session:
        ranking = neighbours(
            session,
            indexes,
            "acme",
            make_embedding(3, noise_floor=0.05),
            k=2,
            search_candidates=100,
        )
    floors = {neighbour.task.name: neighbour.noise_floor for neighbour in ranking.neighbours}
    assert floors == {"noisy": 0.2, "quiet": 0.05}


@pytest.mark.parametrize("metric", sorted(METRICS))
def test_floors_are_those_of_the_metric_where_both_are_known(
    database: Database, indexes: Indexes, metric: str, tmp_path: Path
) -> None:
    known = Noise({"cosine": 0.01, "jsd": 0.02, "entropy": 0.03}, label=20.0, domain=4.0)
    floors = {"cosine": 0.01, "asymmetric": 0.01, "jsd": 0.02, "entropy": 0.03, "discriminant": 0.0}
    with database.session() as session:
        ready_task(session, make_embedding(1, noise=known), name="known")
        ready_task(session, make_embedding(2, noise=Noise({"cosine": 0.01})), name="of before")
    with_library(database, tmp_path, range(100, 102))
    with database.session() as session:
        asked = make_embedding(3, noise=known)
        ranking = neighbours(
            session, indexes, "acme", asked, k=4, metric=metric, search_candidates=100
        )
        population = reference.population(session, "space")
    assert ranking.metric == metric
    found = {near.task.name: near.noise_floor for near in ranking.neighbours}
    if metric in {"label", "domain", "combined"}:
        pair = np.stack([row_of(asked), row_of(make_embedding(1))])
        lengths = Parts.of(pair, asked.epsilon, population).lengths
        weights = METRICS[metric].weights
        shares = np.minimum([20.0, 4.0] / lengths**2, 1) @ [weights.label, weights.domain]
        assert found["known"] == pytest.approx(shares.max())
        assert found["of before"] is None
    else:
        assert found["known"] == floors.get(metric)
        if metric not in {"cosine", "asymmetric", "discriminant"}:
            assert found["of before"] is None


def test_a_neighbour_tells_whether_the_next_one_is_farther_beyond_the_noise(
    database: Database, indexes: Indexes
) -> None:
    asked = make_embedding(50)
    made = [make_embedding(seed) for seed in range(6)]
    distances = one_to_many(
        asked.vector, np.stack([e.vector for e in made]), "cosine", epsilon=asked.epsilon
    )
    gaps = np.diff(np.sort(distances))
    floor = float(np.median(gaps)) + 1e-6
    with database.session() as session:
        for number, embedding in enumerate(made):
            noise = Noise({"cosine": floor})
            ready_task(session, replace(embedding, noise=noise), name=f"acme {number}")
    with database.session() as session:
        first, every = (
            neighbours(session, indexes, "acme", asked, k=k, search_candidates=100) for k in (2, 6)
        )
    told = [near.distinguishable for near in every.neighbours]
    assert told == [*(gaps > floor).tolist(), None]
    assert [near.distinguishable for near in first.neighbours] == told[:2]  # the third is known


def test_an_embedding_of_another_space_is_refused(database: Database, indexes: Indexes) -> None:
    fill(database, 1)
    foreign = make_embedding(1, space_id="elsewhere")
    with database.session() as session, pytest.raises(DifferentSpaces):
        neighbours(session, indexes, "acme", foreign, k=1, search_candidates=100)


def parts_of(embedding: TaskEmbedding) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return embedding.vector, embedding.domain, embedding.discriminants


@pytest.mark.parametrize(
    ("metric", "query", "code"),
    [
        ("euclid", Query("space", make_embedding().vector), "unknown-metric"),
        ("domain", Query("space", make_embedding().vector), "length-mismatch"),
        ("cosine", Query("space", np.ones(3, np.float32)), "length-mismatch"),
        ("cosine", Query("space", np.full(24, np.nan, np.float32)), "vector-invalid"),
        ("cosine", Query("space", np.full(24, -1, np.float32)), "vector-invalid"),
        ("asymmetric", Query("space", make_embedding().vector), "trivial-unknown"),
        (
            "label",
            Query("space", *parts_of(make_embedding())),
            "population-unknown",
        ),
        (
            "combined",
            Query("space", make_embedding().vector, -make_embedding().domain),
            "vector-invalid",
        ),
    ],
)
def test_what_cannot_be_ranked_is_refused(
    database: Database, indexes: Indexes, metric: str, query: Query, code: str
) -> None:
    fill(database, 1)
    with database.session() as session, pytest.raises(InvalidRequest) as caught:
        neighbours(session, indexes, "acme", query, k=1, metric=metric, search_candidates=100)
    assert caught.value.code == code
