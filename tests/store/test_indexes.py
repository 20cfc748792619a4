from __future__ import annotations

import logging
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import update

from app.embedding.distance import COMBINED
from app.embedding.parts import Parts, Population, row_of
from app.errors import DifferentSpaces
from app.store import embeddings, indexes, tasks
from app.store.indexes import FaissIndexes
from app.store.logs_index import LogsIndex
from app.store.parts_index import PartsIndex
from app.store.session import Database
from app.store.space_index import GONE
from app.store.tables import Embedding, EmbeddingArrays, Task
from tests.store.killed import run_and_kill
from tests.store.samples import make_embedding, ready_task

EPSILON = 1e-9
POPULATION = Population.of(
    np.stack([row_of(make_embedding(seed)) for seed in range(6)])[:, :48], EPSILON
)

Held = Callable[[], list[int]]


def fill(database: Database, *seeds: int) -> list[Task]:
    with database.session() as session:
        return [ready_task(session, make_embedding(seed)) for seed in seeds]


def seqs_of(made: list[Task]) -> list[int]:
    return [task.embedding_seq or 0 for task in made]


def live(index: PartsIndex | LogsIndex) -> list[int]:
    held = index.seqs()
    return sorted(held[held != GONE].tolist())


@pytest.fixture(params=["parts", "logs"])
def held(request: pytest.FixtureRequest, database: Database, tmp_path: Path) -> Held:
    """The embeddings that the index of a process holds once it was asked for."""
    ours = FaissIndexes(tmp_path / "index")

    def look() -> list[int]:
        with database.session(read_only=True) as session:
            index, unindexed = (
                ours.by_parts(session, "space", POPULATION)
                if request.param == "parts"
                else ours.by_logs(session, "space")
            )
        assert unindexed.count == 0
        return live(index)

    return look


def test_an_index_follows_the_database(database: Database, held: Held) -> None:
    with pytest.raises(DifferentSpaces):
        held()
    made = fill(database, 0, 1, 2)
    with database.session() as session:
        ready_task(session, make_embedding(9, space_id="elsewhere"))
    assert held() == seqs_of(made)
    with database.session() as session:
        tasks.delete_task(session, tasks.get_own_task(session, "acme", made[0].id))
    assert held() == seqs_of(made[1:])
    more = fill(database, 4)
    assert held() == seqs_of(made[1:]) + seqs_of(more)


def test_processes_on_one_store_agree_at_once(database: Database, tmp_path: Path) -> None:
    ours, theirs = FaissIndexes(tmp_path / "index"), FaissIndexes(tmp_path / "index")
    made = fill(database, 0, 1)
    for step in range(3):
        found = []
        with database.session(read_only=True) as session:
            for each in (ours, theirs) if step % 2 else (theirs, ours):
                index, _ = each.by_parts(session, "space", POPULATION)
                asked = Parts.of(row_of(make_embedding(step))[None], EPSILON, POPULATION)
                found.append(index.search(asked, COMBINED, 10).seqs.tolist())
        assert found[0] == found[1]
        assert found[0][0] == seqs_of(made)[step]
        made += fill(database, step + 2)


def test_a_restored_database_is_noticed_at_the_next_start(
    database: Database, tmp_path: Path
) -> None:
    """A seq may stand for another embedding than it did."""
    made = fill(database, 0, 1, 2)
    with database.session(read_only=True) as session:
        FaissIndexes(tmp_path / "index").by_parts(session, "space", POPULATION)
    with database.session() as session:
        session.execute(
            update(Embedding)
            .where(Embedding.seq == made[1].embedding_seq)
            .values(recipe_digest="another")
        )
        session.execute(
            update(EmbeddingArrays)
            .where(EmbeddingArrays.embedding_seq == made[1].embedding_seq)
            .values(vector=make_embedding(7).vector.tobytes())
        )
    with database.session(read_only=True) as session:
        index, _ = FaissIndexes(tmp_path / "index").by_parts(session, "space", POPULATION)
        assert live(index) == seqs_of(made)
        rows = embeddings.matrix(session, seqs_of(made), "parts")
    parts = Parts.of(rows, EPSILON, POPULATION)
    coded = index.coded()
    row = int(np.flatnonzero(index.seqs() == made[1].embedding_seq)[-1])
    label, _, _ = coded.take(slice(row, row + 1)).unpacked()
    np.testing.assert_allclose(label[0], parts.label[1], atol=0.01)


def test_many_new_ones_are_taken_in_beside_and_ranked_meanwhile(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexes, "AT_ONCE", 4)
    monkeypatch.setattr(indexes, "RANKED_UNINDEXED", 3)
    started: list[object] = []
    monkeypatch.setattr(indexes.Follower, "_start_beside", lambda *_: started.append(1))
    ours = FaissIndexes(tmp_path / "index")
    made = fill(database, 0, 1, 2)
    with database.session(read_only=True) as session:
        ours.by_parts(session, "space", POPULATION)
    made += fill(database, *range(3, 9))
    with database.session(read_only=True) as session:
        index, unindexed = ours.by_parts(session, "space", POPULATION)
    assert live(index) == seqs_of(made)[:3]
    assert started
    assert (unindexed.seqs, unindexed.count) == (tuple(seqs_of(made)[3:6]), 6)
    monkeypatch.undo()
    with database.session(read_only=True) as session:
        monkeypatch.setattr(indexes, "AT_ONCE", 4)
        ours.by_parts(session, "space", POPULATION)
        ours.wait()
        index, unindexed = ours.by_parts(session, "space", POPULATION)
    assert live(index) == seqs_of(made)
    assert unindexed.count == 0


def test_an_index_that_cannot_be_written_serves_as_it_is(
    database: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    ours = FaissIndexes(tmp_path / "index")
    made = fill(database, 0, 1)
    with database.session(read_only=True) as session:
        ours.by_parts(session, "space", POPULATION)
    more = fill(database, 2)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("app.store.shelf.os.pwrite", full)
    with database.session(read_only=True) as session, caplog.at_level(logging.ERROR):
        index, unindexed = ours.by_parts(session, "space", POPULATION)
        ours.wait()
    assert live(index) == seqs_of(made)
    assert unindexed.seqs == tuple(seqs_of(more))
    assert "index.behind" in caplog.text
    monkeypatch.undo()
    with database.session(read_only=True) as session:
        index, unindexed = ours.by_parts(session, "space", POPULATION)
    assert live(index) == seqs_of(made + more)


def test_another_population_makes_another_index(database: Database, tmp_path: Path) -> None:
    fill(database, 0, 1)
    ours = FaissIndexes(tmp_path / "index")
    other = Population(POPULATION.label + np.float32(0.5), POPULATION.domain)
    with database.session(read_only=True) as session:
        first, _ = ours.by_parts(session, "space", POPULATION)
        same, _ = ours.by_parts(session, "space", POPULATION)
        second, _ = ours.by_parts(session, "space", other)
    assert same is first
    assert second is not first
    assert live(second) == live(first)


SERVICE = """
import itertools, sys
from pathlib import Path
from app.store import tasks
from app.store.indexes import FaissIndexes
from app.store.session import Database
from tests.store.samples import make_embedding, ready_task
from tests.store.test_indexes import POPULATION

database, ours = Database(sys.argv[1]), FaissIndexes(Path(sys.argv[2]))
kept = []
print("up", flush=True)
for seed in itertools.count(1_000 * int(sys.argv[3])):
    with database.session() as session:
        kept.append(ready_task(session, make_embedding(seed)).id)
        if len(kept) % 5 == 0:
            tasks.delete_task(session, tasks.get_own_task(session, "acme", kept.pop(0)))
    with database.session(read_only=True) as session:
        ours.by_parts(session, "space", POPULATION)
        ours.by_logs(session, "space")
"""


def test_whoever_adds_and_searches_is_killed_and_the_next_finds_all(
    database: Database, url: str, tmp_path: Path
) -> None:
    """Between a commit and what follows it in the index, or halfway through either."""
    generator = random.Random(0)
    for life in range(4):
        directory = tmp_path / "index"
        seconds = generator.uniform(0.2, 0.6)
        run_and_kill(SERVICE, url, str(directory), str(life), seconds=seconds)
        ours = FaissIndexes(directory)
        with database.session(read_only=True) as session:
            present = [seq for seq, _ in embeddings.added(session, "space", 0)]
            by_parts, left_out = ours.by_parts(session, "space", POPULATION)
            by_logs, _ = ours.by_logs(session, "space")
            assert live(by_parts) == live(by_logs) == present
            assert left_out.count == 0
            for index, population in ((by_parts, POPULATION), (by_logs, None)):
                anew, _ = FaissIndexes(tmp_path / f"anew {life}").followed(
                    session, "space", population
                )
                points = (each.points(np.array(present)) for each in (index, anew))
                np.testing.assert_allclose(*points, atol=1e-3)  # float16, in another order
    assert len(present) > 4
