"""The same questions to every way of searching: answers are those of a ranking by hand.

A case says who asks for what; `ENGINES` are the ways. What ranks by hand compares all that the
store holds, filters in plain Python, and has nothing of the search; the distance itself is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from sqlalchemy import select

from app.embedding.distance import METRICS, Compared, one_to_many
from app.embedding.parts import Population, row_of
from app.embedding.vector import TaskEmbedding
from app.store import embeddings, reference
from app.store.embeddings import Matrix
from app.store.indexes import open_indexes
from app.store.neighbours import Filters, Ranking, neighbours
from app.store.parts_index import PartsIndex
from app.store.pgvector import PgvectorIndexes
from app.store.search import Indexes
from app.store.session import Database
from app.store.tables import PUBLIC, Task
from tests.conftest import asked_for
from tests.engines import EMBEDDED, SERVERS, emptied
from tests.store.conftest import MIGRATIONS
from tests.store.samples import make_embedding, ready_task, ship

TASKS, LIBRARY = 300, 12
FEW = 80  # candidates that an index proposes, of so many tasks
EVERY = 10_000

FILTERS, CAUSES = 512, 6
_RANDOM = np.random.default_rng(0)
PROFILE = _RANDOM.normal(-8, 2, FILTERS)
EFFECTS = _RANDOM.normal(0, 0.5, (CAUSES, FILTERS))


def made(seed: int) -> TaskEmbedding:
    """As real ones are: filters share what a few causes do to them, and have some noise."""
    random = np.random.default_rng(seed)
    logs = PROFILE + random.normal(size=(2, CAUSES)) @ EFFECTS
    logs += random.normal(0, 0.4, logs.shape)
    vector, domain = np.exp(logs + random.normal(0, 0.7)).astype(np.float32)
    blank = make_embedding(seed, dimensions=FILTERS)
    return replace(blank, vector=vector, domain=domain)


@dataclass(frozen=True)
class Engine:
    """`compared` tasks at most are compared without being proposed by an index first; `recall`:
    the share of the nearest that has to be found."""

    on: str
    search_candidates: int
    compared: int
    recall: float


ENGINES = {
    "exhaustive": Engine(EMBEDDED, search_candidates=EVERY, compared=EVERY, recall=1.0),
    "faiss": Engine(EMBEDDED, search_candidates=FEW, compared=FEW // 2, recall=0.8),
    "postgresql": Engine(SERVERS, search_candidates=EVERY, compared=EVERY, recall=1.0),
    "pgvector": Engine(SERVERS, search_candidates=FEW, compared=FEW, recall=0.8),
}


@dataclass(frozen=True)
class Known:
    """What stands in the store, in order of age."""

    name: str
    tenant: str
    tags: tuple[str, ...]
    label_kind: str
    n_classes: int


@dataclass(frozen=True)
class Case:
    """`asked`: the seed of an embedding that may be a task's or nobody's."""

    asked: int = 7
    k: int = 10
    tenant: str = "acme"
    filters: Filters = field(default_factory=Filters)
    passes: Callable[[Known], bool] = lambda _: True


CASES = {
    "all": Case(),
    "the first one alone": Case(k=1),
    "more than there are": Case(k=TASKS + 100),
    "nobody's embedding": Case(asked=5_000),
    "another tenant's": Case(tenant="rival", asked=5_001),
    "who has nothing": Case(tenant="newcomer", k=LIBRARY + 1),
    "a tag of half": Case(filters=Filters(tag="even"), passes=lambda t: "even" in t.tags),
    "a tag of few": Case(filters=Filters(tag="rare"), passes=lambda t: "rare" in t.tags),
    "a tag of none": Case(filters=Filters(tag="unheard of"), passes=lambda _: False),
    "several labels": Case(
        filters=Filters(label_kind="multi_label"), passes=lambda t: t.label_kind == "multi_label"
    ),
    "so many classes": Case(
        filters=Filters(min_classes=4, max_classes=6), passes=lambda t: 4 <= t.n_classes <= 6
    ),
    "all of it together": Case(
        k=3,
        asked=11,
        filters=Filters(tag="even", label_kind="single_label", min_classes=3),
        passes=lambda t: "even" in t.tags and t.label_kind == "single_label" and t.n_classes >= 3,
    ),
    "the same bytes several times": Case(asked=3, k=6),
}


@dataclass(frozen=True)
class Crowd:
    database: Database
    known: list[Known]
    population: Population
    trivial: float | None
    rows: dict[str, Matrix]


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crowd]:
    directory: Path = tmp_path_factory.mktemp("crowd")
    with crowd(f"sqlite:///{directory / 'store.sqlite'}", directory) as made:
        yield made


@pytest.fixture(scope="module")
def servers(postgresql: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crowd]:
    with crowd(emptied(postgresql), tmp_path_factory.mktemp("crowd")) as made:
        yield made


@contextmanager
def crowd(url: str, directory: Path) -> Iterator[Crowd]:
    """Every tenth task has the bytes of task 3."""
    database = Database(url)
    database.migrate(MIGRATIONS)
    shipped = {f"shipped {seed}": made(9_000 + seed) for seed in range(LIBRARY)}
    ship(directory, shipped)
    with database.session() as session:
        reference.load_reference(session, directory)
        population = reference.population(session, "space")
        for number in range(TASKS):
            seed = 3 if number % 10 == 3 else number
            task = ready_task(
                session,
                made(seed),
                recipe=f"recipe of {seed}",
                tenant="rival" if number % 5 == 4 else "acme",
                name=f"task {number}",
                tags=tuple(
                    tag for tag, every in (("even", 2), ("rare", 97)) if number % every == 0
                ),
            )
            task.label_kind = "multi_label" if number % 3 == 0 else "single_label"
            task.n_classes = 2 + number % 7
    with database.session(read_only=True) as session:
        tasks = session.scalars(select(Task).order_by(Task.seq)).all()
        known = [
            Known(
                name=task.name,
                tenant=task.tenant,
                tags=tuple(tag.tag for tag in task.tags),
                label_kind=task.label_kind,
                n_classes=task.n_classes or 0,
            )
            for task in tasks
        ]
        seqs = [task.embedding_seq or 0 for task in tasks]
        rows = {kind: embeddings.matrix(session, seqs, kind) for kind in get_args(Compared)}
        trivial = reference.trivial(session, "space")
    assert population is not None
    assert len(known) == TASKS + LIBRARY
    yield Crowd(database, known, population, trivial, rows)
    database.dispose()


@dataclass(frozen=True)
class Searched:
    """An engine whose indexes have taken in all tasks."""

    engine: Engine
    crowd: Crowd
    indexes: Indexes

    def ask(self, asked: TaskEmbedding, metric: str, case: Case) -> Ranking:
        with self.crowd.database.session(read_only=True) as session:
            return neighbours(
                session,
                self.indexes,
                case.tenant,
                asked,
                k=case.k,
                metric=metric,
                filters=case.filters,
                search_candidates=self.engine.search_candidates,
            )


@pytest.fixture(scope="module", params=ENGINES)
def searched(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Searched]:
    engine = ENGINES[request.param]
    if not asked_for(request.config, [engine.on]):
        pytest.skip("not asked for")
    crowd: Crowd = request.getfixturevalue(engine.on)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PartsIndex.__init__.__kwdefaults__, "exhaustive", engine.compared)
        indexes = open_indexes("auto", tmp_path_factory.mktemp("index"), crowd.database)
        with crowd.database.session(read_only=True) as session:
            for population in (None, crowd.population):
                indexes.followed(session, "space", population)
        indexes.wait()
        yield Searched(engine, crowd, indexes)


def by_hand(crowd: Crowd, case: Case, metric: str) -> list[tuple[float, str]]:
    """All whom the case lets through, nearest first, of equals the older."""
    seen = [
        place
        for place, known in enumerate(crowd.known)
        if known.tenant in (case.tenant, PUBLIC) and case.passes(known)
    ]
    if not seen:
        return []
    compared = METRICS[metric].compares
    distances = one_to_many(
        row_of(made(case.asked)) if compared == "parts" else made(case.asked).vector,
        crowd.rows[compared][seen],
        metric,
        epsilon=1e-9,
        trivial=crowd.trivial,
        population=crowd.population,
    )
    order = np.argsort(distances, kind="stable")
    return [(float(distances[place]), crowd.known[seen[place]].name) for place in order]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("name", CASES)
def test_answers_are_those_of_a_ranking_by_hand(searched: Searched, name: str, metric: str) -> None:
    case = CASES[name]
    found = searched.ask(made(case.asked), metric, case)
    expected = by_hand(searched.crowd, case, metric)
    told = {neighbour.task.name: neighbour.distance for neighbour in found.neighbours}
    true = {name: distance for distance, name in expected}
    assert len(told) == min(case.k, len(expected))
    assert told == pytest.approx({name: true[name] for name in told}, rel=1e-6, abs=1e-9)
    in_order = [name for _, name in expected if name in told]
    assert list(told) == in_order
    nearest = {name for _, name in expected[: case.k]}
    assert len(nearest & told.keys()) >= round(searched.engine.recall * len(nearest))
    assert found.unindexed == 0


@pytest.mark.parametrize("metric", ["combined", "cosine"])
def test_every_way_of_searching_is_what_it_says(searched: Searched, metric: str) -> None:
    found = searched.ask(made(7), metric, Case())
    assert found.exact == (searched.engine.compared == EVERY)
    of_database = isinstance(searched.indexes, PgvectorIndexes)
    assert of_database == (searched.engine.on == SERVERS)
