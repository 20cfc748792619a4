from __future__ import annotations

import numpy as np
import pytest

from app.embedding.parts import row_of
from app.store import embeddings, tasks
from app.store.session import Database
from app.store.tables import now
from tests.store.samples import make_embedding, ready_task


def test_graves_are_forgotten_but_for_the_newest(database: Database) -> None:
    with database.session() as session:
        made = [ready_task(session, make_embedding(seed)) for seed in range(3)]
        seqs = [task.embedding_seq for task in made]
    with database.session() as session:
        for task in made[:2]:
            tasks.delete_task(session, tasks.get_own_task(session, "acme", task.id))
    with database.session() as session:
        assert embeddings.buried(session, "space", 0) == seqs[:2]
        embeddings.forget_graves(session, now())
        assert embeddings.buried(session, "space", 0) == seqs[1:2]
        assert embeddings.newest(session, "space") == (seqs[2], 2)


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
