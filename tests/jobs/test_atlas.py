from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from app.embedding.vector import TaskEmbedding
from app.jobs.atlas import refresh
from app.store import atlas, embeddings, tasks
from app.store.atlas import Place
from app.store.indexes import open_indexes
from app.store.search import Indexes
from app.store.session import Database
from app.store.tables import PUBLIC, Task, now
from tests.store.samples import make_embedding, ready_task

SPACE = "space"


@pytest.fixture
def indexes(database: Database, tmp_path: Path) -> Indexes:
    return open_indexes("auto", tmp_path / "index", database)


def of_kind(kind: int, seed: int) -> TaskEmbedding:
    """Near the others of its kind."""
    base, other = make_embedding(kind), make_embedding(1_000 + seed)
    return replace(
        base,
        vector=base.vector * (other.vector + np.float32(0.1)),
        domain=base.domain * (other.domain + np.float32(0.1)),
    )


def fill(database: Database, count: int, *, tenant: str = "acme", start: int = 0) -> list[Task]:
    with database.session() as session:
        return [
            ready_task(
                session,
                of_kind(i % 3, i),
                tenant=tenant,
                name=f"{tenant} {i}",
                tags=(f"kind {i % 3}",),
            )
            for i in range(start, start + count)
        ]


def drawn(database: Database, indexes: Indexes) -> int:
    return refresh(database, indexes, threads=1, stop=lambda: False)


def places(database: Database, tenant: str = "acme") -> dict[int, Place]:
    with database.session(read_only=True) as session:
        found, _ = atlas.places(session, tenant, SPACE)
    return {place.spot.task_seq: place for place in found}


def positions(found: dict[int, Place]) -> dict[int, tuple[float, float]]:
    return {seq: (place.x, place.y) for seq, place in found.items()}


def test_a_map_is_drawn_once_and_again_only_after_a_change(
    database: Database, indexes: Indexes
) -> None:
    made = fill(database, 30)
    assert drawn(database, indexes) == 1
    found = places(database)
    assert set(found) == {task.seq for task in made}
    assert np.isfinite([list(at) for at in positions(found).values()]).all()
    assert found[made[3].seq].complexity == pytest.approx(of_kind(0, 3).complexity, rel=1e-5)
    assert drawn(database, indexes) == 0


def test_new_tasks_leave_the_others_where_they_are(database: Database, indexes: Indexes) -> None:
    fill(database, 30)
    drawn(database, indexes)
    before = positions(places(database))
    new = fill(database, 3, start=30)
    assert drawn(database, indexes) == 1
    after = positions(places(database))
    assert {seq: after[seq] for seq in before} == before
    assert {task.seq for task in new} <= set(after)


def test_after_many_new_tasks_all_settle_from_where_they_are(
    database: Database, indexes: Indexes
) -> None:
    fill(database, 30)
    drawn(database, indexes)
    before = positions(places(database))
    fill(database, 15, start=30)
    assert drawn(database, indexes) == 1
    after = positions(places(database))
    old, new = (np.array([at[seq] for seq in before]) for at in (before, after))
    assert not np.array_equal(old, new)
    size = np.sqrt(np.square(old - old.mean(axis=0)).sum(axis=1).mean())
    assert np.median(np.linalg.norm(new - old, axis=1)) < 0.3 * size
    assert len(after) == 45


def test_what_is_gone_goes_and_what_is_embedded_anew_finds_another_place(
    database: Database, indexes: Indexes
) -> None:
    made = fill(database, 30)
    drawn(database, indexes)
    before = positions(places(database))
    with database.session() as session:
        tasks.delete_task(session, tasks.get_own_task(session, "acme", made[0].id))
        moved = tasks.get_own_task(session, "acme", made[1].id)
        moved.embedding = embeddings.add(session, "acme", "anew", of_kind(2, 99))
    assert drawn(database, indexes) == 1
    after = positions(places(database))
    assert made[0].seq not in after
    assert after[made[1].seq] != before[made[1].seq]
    assert after[made[2].seq] == before[made[2].seq]


def test_each_tenant_has_a_map_of_what_it_sees(database: Database, indexes: Indexes) -> None:
    public = fill(database, 6, tenant=PUBLIC)
    ours = fill(database, 3, tenant="acme", start=20)
    fill(database, 3, tenant="rival", start=40)
    with database.session() as session:
        asked_about = ready_task(session, make_embedding(50), name="asked about")
        asked_about.expires_at = now()
    assert drawn(database, indexes) == 3
    assert set(places(database)) == {task.seq for task in public + ours}
    assert set(places(database, PUBLIC)) == {task.seq for task in public}
    with database.session(read_only=True) as session:
        nobody = atlas.find(session, "nobody", None)
        assert nobody is not None
        assert nobody.tenant == PUBLIC
        own = atlas.find(session, "rival", SPACE)
        assert own is not None
        assert own.tenant == "rival"


def test_tasks_of_the_same_bytes_lie_on_one_another(database: Database, indexes: Indexes) -> None:
    fill(database, 10)
    with database.session() as session:
        twins = [ready_task(session, make_embedding(7), recipe="same") for _ in range(2)]
    drawn(database, indexes)
    found = positions(places(database))
    assert found[twins[0].seq] == found[twins[1].seq]


def test_a_space_that_was_left_loses_its_map(database: Database, indexes: Indexes) -> None:
    [task] = fill(database, 1)
    assert drawn(database, indexes) == 1
    with database.session() as session:
        tasks.delete_task(session, tasks.get_own_task(session, "acme", task.id))
    drawn(database, indexes)
    with database.session(read_only=True) as session:
        assert atlas.find(session, "acme", SPACE) is None


def test_a_map_with_clusters_names_them(database: Database, indexes: Indexes) -> None:
    fill(database, 60)
    drawn(database, indexes)
    with database.session(read_only=True) as session:
        found = atlas.find(session, "acme", SPACE)
        assert found is not None
        assert found.n_tasks == found.n_settled == 60
        assert found.trustworthiness is not None
        assert found.trustworthiness > 0.6
        names = [cluster["name"] for cluster in found.clusters]
        assert all(name.startswith(("kind", "cluster")) for name in names)
        assert len(found.dendrogram) == max(0, len(names) - 1)


def test_a_worker_that_is_to_stop_leaves_the_other_maps(
    database: Database, indexes: Indexes
) -> None:
    fill(database, 3)
    assert refresh(database, indexes, threads=1, stop=lambda: True) == 0
