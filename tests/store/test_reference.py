from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import func, select

from app.store import embeddings, reference, tasks
from app.store.neighbours import neighbours
from app.store.search import Indexes
from app.store.session import Database
from app.store.tables import PUBLIC, Embedding, ReferenceLibrary, Task
from tests.store.samples import make_embedding, ship, without


def task_ids(database: Database) -> set[str]:
    with database.session(read_only=True) as session:
        return set(session.scalars(select(Task.id)))


def load(database: Database, models_dir: Path) -> int:
    with database.session() as session:
        return reference.load_reference(session, models_dir)


def test_the_library_becomes_public_tasks_that_everyone_finds(
    database: Database, indexes: Indexes, tmp_path: Path
) -> None:
    made = {"flags": make_embedding(1), "digits": make_embedding(2)}
    ship(tmp_path, made)
    assert load(database, tmp_path) == 2
    with database.session(read_only=True) as session:
        task = tasks.get_task(session, "anyone", "ref-probe-flags")
        assert (task.tenant, task.status, task.licence) == (PUBLIC, "ready", "MIT")
        assert [tag.tag for tag in task.tags] == ["glyphs", "reference"]
        assert task.embedding_seq is not None
        stored = embeddings.load(session, task.embedding_seq)
        ranking = neighbours(session, indexes, "anyone", made["flags"], k=2, search_candidates=100)
        assert (reference.trivial(session, "space") or 0) > 0
        assert reference.trivial(session, "elsewhere") is None
        assert neighbours(
            session,
            indexes,
            "anyone",
            made["flags"],
            k=2,
            metric="asymmetric",
            search_candidates=100,
        ).neighbours
    assert [neighbour.task.id for neighbour in ranking.neighbours] == [
        "ref-probe-flags",
        "ref-probe-digits",
    ]
    np.testing.assert_allclose(stored.vector, made["flags"].vector, rtol=0.023)
    assert stored.vector[-1] == 0  # a dead filter stays dead
    np.testing.assert_allclose(stored.draw_error, stored.vector * 0.1, rtol=0.2)
    np.testing.assert_allclose(stored.sampling_error, stored.vector * 0.2, rtol=0.2)


def test_a_complexity_is_placed_among_those_of_the_library(
    database: Database, tmp_path: Path
) -> None:
    made = {str(seed): make_embedding(seed) for seed in range(5)}
    ship(tmp_path, made)
    load(database, tmp_path)
    with database.session(read_only=True) as session:
        known = sorted(session.scalars(select(Embedding.complexity)))
        for rank, complexity in enumerate(known):
            assert reference.easier(session, "space", complexity) == (rank, 5)
        assert reference.easier(session, "space", 2 * known[-1]) == (5, 5)
        assert reference.easier(session, "elsewhere", 1.0) == (0, 0)


def test_the_library_brings_the_population_of_its_space(database: Database, tmp_path: Path) -> None:
    path = ship(tmp_path, {"flags": make_embedding(1), "digits": make_embedding(2)})
    load(database, tmp_path)
    with database.session(read_only=True) as session:
        kept = reference.population(session, "space")
        assert reference.population(session, "elsewhere") is None
    assert kept is not None
    with np.load(path) as library:
        np.testing.assert_array_equal(kept.label, library["population_label"])
        np.testing.assert_array_equal(kept.domain, library["population_domain"])
        assert kept.label.dtype == np.float32

    ship(tmp_path, {"flags": make_embedding(3)})
    load(database, tmp_path)
    with database.session(read_only=True) as session:
        renewed = reference.population(session, "space")
    assert renewed is not None
    assert not np.array_equal(renewed.label, kept.label)


def test_a_library_without_a_population_still_loads(
    database: Database, indexes: Indexes, tmp_path: Path
) -> None:
    path = ship(tmp_path, {"flags": make_embedding(1)})
    without(path, "population_label", "population_domain")
    assert load(database, tmp_path) == 1
    with database.session(read_only=True) as session:
        assert reference.population(session, "space") is None
        ranking = neighbours(
            session, indexes, "anyone", make_embedding(1), k=1, search_candidates=100
        )
    assert ranking.metric == "cosine"


@pytest.mark.parametrize("population", [np.zeros(3, np.float32), np.full(24, np.nan, np.float32)])
def test_a_population_of_other_filters_is_told_of(
    database: Database,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    population: np.ndarray,
) -> None:
    path = ship(tmp_path, {"flags": make_embedding(1)})
    with np.load(path) as library:
        arrays = dict(library)
    means = {"population_label": population, "population_domain": population}
    np.savez(path, **arrays | means)
    assert load(database, tmp_path) == 0
    assert "reference.unreadable" in caplog.messages


def test_an_unchanged_library_is_left_alone(database: Database, tmp_path: Path) -> None:
    ship(tmp_path, {"flags": make_embedding(1)})
    assert load(database, tmp_path) == 1
    assert load(database, tmp_path) == 0


def test_a_changed_library_replaces_the_one_before(database: Database, tmp_path: Path) -> None:
    ship(tmp_path, {"flags": make_embedding(1), "digits": make_embedding(2)})
    load(database, tmp_path)
    ship(tmp_path, {"flags": make_embedding(3), "fonts": make_embedding(4)})
    assert load(database, tmp_path) == 2
    with database.session(read_only=True) as session:
        assert set(session.scalars(select(Task.id))) == {"ref-probe-flags", "ref-probe-fonts"}
        assert session.scalar(select(func.count()).select_from(Embedding)) == 2


def test_libraries_of_two_probes_may_hold_sets_of_the_same_names(
    database: Database, tmp_path: Path
) -> None:
    ship(tmp_path, {"flags": make_embedding(1)}, "small")
    ship(tmp_path, {"flags": make_embedding(1)}, "large")  # even the same bytes
    assert load(database, tmp_path) == 2
    assert task_ids(database) == {"ref-small-flags", "ref-large-flags"}


def test_a_library_whose_file_was_renamed_leaves_its_old_name(
    database: Database, tmp_path: Path
) -> None:
    path = ship(tmp_path, {"flags": make_embedding(1)}, "small")
    load(database, tmp_path)
    path.rename(path.with_stem("large"))
    assert load(database, tmp_path) == 1
    assert task_ids(database) == {"ref-large-flags"}
    with database.session(read_only=True) as session:
        assert session.scalars(select(ReferenceLibrary.probe)).all() == ["large"]
        assert session.scalar(select(func.count()).select_from(Embedding)) == 1


def test_a_library_that_does_not_fit_is_told_of_and_changes_nothing(
    database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ship(tmp_path, {"flags": make_embedding(1)})
    load(database, tmp_path)
    path = ship(tmp_path, {"fonts": make_embedding(2)})
    without(path, "noise")
    ship(tmp_path, {"flags": make_embedding(3)}, "zebra")  # the next one is loaded all the same
    with caplog.at_level(logging.ERROR, "task2vec"):
        assert load(database, tmp_path) == 1
    assert caplog.messages == ["reference.unreadable"]
    assert task_ids(database) == {"ref-probe-flags", "ref-zebra-flags"}


def test_a_torn_library_does_not_keep_the_service_from_its_start(
    database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = ship(tmp_path, {"flags": make_embedding(1)})
    path.write_bytes(path.read_bytes()[:100])
    assert load(database, tmp_path) == 0
    assert "reference.unreadable" in caplog.messages


def test_a_name_that_stands_twice_in_a_library_is_told_of(
    database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = ship(tmp_path, {"flags": make_embedding(1), "fonts": make_embedding(2)})
    with np.load(path) as library:
        arrays = dict(library)
    arrays["tasks"] = np.str_(str(arrays["tasks"]).replace("fonts", "flags"))
    np.savez(path, **arrays)
    assert load(database, tmp_path) == 0
    assert "reference.unreadable" in caplog.messages
    assert task_ids(database) == set()


def test_no_library_is_no_error(database: Database, tmp_path: Path) -> None:
    assert load(database, tmp_path) == 0
