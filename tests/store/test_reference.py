from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import func, select

from app.embedding.vector import TaskEmbedding
from app.errors import InvalidRequest
from app.reference.library import task_card, write_library
from app.store import embeddings, reference, tasks
from app.store.neighbours import neighbours
from app.store.session import Database
from app.store.tables import PUBLIC, Embedding, Task
from app.store.vectors import IndexCache
from tests.store.samples import make_embedding


def ship(models_dir: Path, made: dict[str, TaskEmbedding]) -> Path:
    path = models_dir / "reference" / "probe.npz"
    cards = [
        task_card(embedding, name=name, tags=["reference", "glyphs"], source="a set", licence="MIT")
        for name, embedding in made.items()
    ]
    write_library(path, list(zip(cards, made.values(), strict=True)))
    return path


def load(database: Database, models_dir: Path) -> int:
    with database.session() as session:
        return reference.load_reference(session, models_dir)


def test_the_library_becomes_public_tasks_that_everyone_finds(
    database: Database, tmp_path: Path
) -> None:
    made = {"flags": make_embedding(1), "digits": make_embedding(2)}
    ship(tmp_path, made)
    assert load(database, tmp_path) == 2
    with database.session(read_only=True) as session:
        task = tasks.get_task(session, "anyone", "ref-flags")
        assert (task.tenant, task.status, task.licence) == (PUBLIC, "ready", "MIT")
        assert [tag.tag for tag in task.tags] == ["glyphs", "reference"]
        assert task.embedding_seq is not None
        stored = embeddings.load(session, task.embedding_seq)
        ranking = neighbours(
            session, IndexCache(), "anyone", made["flags"], k=2, search_candidates=100
        )
        assert (reference.trivial(session, "space") or 0) > 0
        assert reference.trivial(session, "elsewhere") is None
        assert neighbours(
            session,
            IndexCache(),
            "anyone",
            made["flags"],
            k=2,
            metric="asymmetric",
            search_candidates=100,
        ).neighbours
    assert [neighbour.task.id for neighbour in ranking.neighbours] == ["ref-flags", "ref-digits"]
    np.testing.assert_allclose(stored.vector, made["flags"].vector, rtol=0.023)
    assert stored.vector[-1] == 0  # a dead filter stays dead
    np.testing.assert_allclose(stored.draw_error, stored.vector * 0.1, rtol=0.2)
    np.testing.assert_allclose(stored.sampling_error, stored.vector * 0.2, rtol=0.2)


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
        assert set(session.scalars(select(Task.id))) == {"ref-flags", "ref-fonts"}
        assert session.scalar(select(func.count()).select_from(Embedding)) == 2


def test_a_library_that_does_not_fit_changes_nothing(database: Database, tmp_path: Path) -> None:
    ship(tmp_path, {"flags": make_embedding(1)})
    load(database, tmp_path)
    path = ship(tmp_path, {"fonts": make_embedding(2)})
    with np.load(path) as library:
        arrays = {name: library[name] for name in library if name != "noise_floor"}
    np.savez(path, **arrays)
    with pytest.raises(InvalidRequest) as caught:
        load(database, tmp_path)
    assert caught.value.code == "reference-unreadable"
    with database.session(read_only=True) as session:
        assert session.scalars(select(Task.id)).all() == ["ref-flags"]


def test_no_library_is_no_error(database: Database, tmp_path: Path) -> None:
    assert load(database, tmp_path) == 0
