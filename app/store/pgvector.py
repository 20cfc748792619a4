"""Search in PostgreSQL by pgvector, over the indexes that `points` keeps.

An index is made when its space is first searched, and anew when there are many times as many
embeddings as showed its axes. Until it is complete nobody adds to it, so that what takes long, the
graphs, is made while embeddings come and go; what came meanwhile is taken in at the end, while
nobody else adds any.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
from sqlalchemy import Row, Select, exists, func, select, text
from sqlalchemy.exc import NotSupportedError, ProgrammingError, SQLAlchemyError
from sqlalchemy.orm import Session

from app.embedding.codes import CodedParts
from app.embedding.distance import Ranker
from app.embedding.parts import Parts, Population, Weights
from app.embedding.projection import SAMPLE, Projection, unit
from app.embedding.vector import Vector
from app.store import embeddings, points, reference
from app.store.parts_index import REFITTED, Likened, parts_key
from app.store.points import LOGS, Kind, LogPoints, PartPoints
from app.store.progress import OnCount
from app.store.search import Points, Search, Unindexed, Visible, kind_named
from app.store.session import Database
from app.store.space_index import Found, proposals
from app.store.tables import PUBLIC, Embedding, SearchIndex, Task, now
from app.store.vectors import Matrix, Rows, nearest
from app.telemetry import log_event

AT_ONCE = 128
"""Of so many embeddings an index is made before the search goes on; of more, beside it."""
RANKED_UNINDEXED = 128
"""So many that no index holds are ranked all the same."""
REPLACED_KEPT = timedelta(hours=1)
"""No search that found an index lasts longer."""
_READ_AT_ONCE = 10_000
_EXTENSION = "CREATE EXTENSION IF NOT EXISTS vector"


def is_available(database: Database) -> bool:
    """Whether the database has the extension, or takes it."""
    try:
        with database.session() as session:
            if session.get_bind().dialect.name != "postgresql":
                return False
            session.execute(text(_EXTENSION))
    except (NotSupportedError, ProgrammingError) as error:  # not there; not allowed
        log_event("pgvector.missing", level=logging.WARNING, detail=str(error.orig))
        return False
    return True


class PgvectorIndexes:
    """Of all spaces of a database that has the extension."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._mutex, self._at_once = threading.Lock(), threading.Lock()
        self._beside: dict[tuple[str, str], threading.Thread] = {}

    def searching(
        self, session: Session, space_id: str, ranker: Ranker, visible: Visible, least: int
    ) -> tuple[Search, Unindexed]:
        population = ranker.population if ranker.parts is not None else None
        index, unindexed = self._opened(session, space_id, population)
        if index is None:
            nothing = Found(np.empty(0, np.int64), exhaustive=True)
            return lambda _k, _narrowed: nothing, unindexed
        size = points.size(session, index)
        least = proposals(least, size)
        own = points.points_of(session, index).c
        asked = _Asked.of(points.kind_of(session, index), ranker)
        seen = exists().where(
            Task.embedding_seq == own.embedding_seq,
            Embedding.seq == own.embedding_seq,
            *visible.conditions,
        )

        def search(k: int, narrowed: bool) -> Found:
            n = max(least, 2 * k)
            exact = narrowed or size <= n
            condition = seen if narrowed else own.tenant.in_((visible.tenant, PUBLIC))
            rows = points.proposed(
                session, index, asked.point, asked.coordinates, n, condition, exact=exact
            )
            return asked.found(rows, exhaustive=size <= n or (narrowed and len(rows) < n))

        return search, unindexed

    def followed(
        self, session: Session, space_id: str, population: Population | None
    ) -> tuple[Points | None, Unindexed]:
        index, unindexed = self._opened(session, space_id, population)
        if index is None:  # to this session: one may have been made just now
            with self._database.session(read_only=True) as later:
                index, unindexed = self._opened(later, space_id, population)
        return None if index is None else _Held(self._database, index), unindexed

    def behind(self, session: Session) -> dict[tuple[str, str], int]:
        made = {
            (index.space_id, index.key): session.scalars(
                select(func.count()).select_from(points.missing(session, index).subquery())
            ).one()
            for index in session.scalars(
                select(SearchIndex).where(SearchIndex.completed_at.is_(None))
            )
        }
        return {
            (space_id, kind_named(key)): count
            for (space_id, key), count in made.items()
            if points.newest(session, space_id, key) is None
        }

    def wait(self) -> None:
        for thread in list(self._beside.values()):
            thread.join()

    def _opened(
        self, session: Session, space_id: str, population: Population | None
    ) -> tuple[SearchIndex | None, Unindexed]:
        """The index, and what of the space it does not hold: nothing, or all where there is none
        yet. DifferentSpaces where the session sees no embedding of the space."""
        key = LOGS if population is None else parts_key(population)
        index = points.newest(session, space_id, key)
        if index is None:
            space = embeddings.get_space(session, space_id)
            first = embeddings.added(session, space_id, 0, RANKED_UNINDEXED)
            count = embeddings.count(session, space_id)
            builder = _Builder(self._database, space_id, key, space.epsilon, population)
            if count > AT_ONCE:
                self._start_beside(builder)
            # One at a time: it takes connections, and every search that waited would have one too.
            elif self._at_once.acquire(blocking=False):
                try:
                    builder.try_to_build()
                finally:
                    self._at_once.release()
            return None, Unindexed(tuple(seq for seq, _ in first), count)
        if _is_outgrown(session, index):
            self._start_beside(_Builder(self._database, space_id, key, index.epsilon, population))
        return index, Unindexed()

    def _start_beside(self, builder: _Builder) -> None:
        with self._mutex:
            thread = self._beside.get(builder.makes)
            if thread is None or not thread.is_alive():
                thread = self._beside[builder.makes] = threading.Thread(
                    target=builder.try_to_build, name="index-build", daemon=True
                )
                thread.start()


@dataclass(frozen=True, slots=True)
class _Asked:
    """A query as an index is asked it, and what its answers are made of."""

    point: Vector
    coordinates: slice
    parts: Parts | None
    weights: Weights

    @classmethod
    def of(cls, kind: Kind, ranker: Ranker) -> _Asked:
        weights = ranker.metric.weights
        if isinstance(kind, LogPoints):
            point = kind.point(ranker.query.astype(np.float32))
            return cls(point, slice(0, kind.width), None, weights)
        assert ranker.parts is not None  # noqa: S101
        return cls(kind.point(ranker.parts), kind.counted(weights), ranker.parts, weights)

    def found(self, rows: Sequence[Row[Any]], *, exhaustive: bool) -> Found:
        """By how alike they are, as far as codes tell; of equally alike ones the older first."""
        seqs = np.array([row.embedding_seq for row in rows], np.int64)
        if self.parts is None or not len(rows):
            return Found(seqs, exhaustive)
        codes = np.frombuffer(b"".join(row.codes for row in rows), np.int8)
        scales = np.frombuffer(b"".join(row.scales for row in rows), "<f4")
        coded = CodedParts(
            codes.reshape(len(rows), -1), scales.reshape(-1, 2), self.parts.label.shape[1]
        )
        likeness = coded.alike(self.parts, self.weights, np.arange(len(rows))).round(6)
        order = np.lexsort((seqs, -likeness))
        return Likened(seqs[order], exhaustive, likeness[order])


class _Builder:
    """Makes one index, unless another process is at it."""

    def __init__(
        self,
        database: Database,
        space_id: str,
        key: str,
        epsilon: float,
        population: Population | None,
    ) -> None:
        self.makes = space_id, key
        self._database = database
        self._epsilon = epsilon
        self._population = population

    def try_to_build(self) -> None:
        try:
            with self._database.alone(f"search index {' '.join(self.makes)}") as is_alone:
                if is_alone:
                    self._build()
        except SQLAlchemyError as error:
            log_event(
                "index.behind",
                level=logging.ERROR,
                space_id=self.makes[0],
                detail=str(error),
                remedy="Look at the database's log; the next search tries again.",
            )

    def _build(self) -> None:
        with self._database.session(read_only=True) as session:
            newest = points.newest(session, *self.makes)
            if newest is not None and not _is_outgrown(session, newest):
                return  # another process was faster
            kind, fitted = self._fitted(session)
        with self._database.session() as session:
            for torn in session.scalars(_incomplete(*self.makes)).all():  # its maker is dead
                points.drop(session, torn)
            index = points.create(session, *self.makes, fitted, kind)
        self._fill(index)
        with self._database.session() as session:
            points.make_graphs(session, index)
        self._fill(index)
        with self._database.session() as session:
            embeddings.in_order_of_commits(session)
            index = session.merge(index)
            self._take_in(session, index, None)
            points.complete(session, index)

    def _fitted(self, session: Session) -> tuple[Kind, int]:
        """What the index is to make of embeddings, and of how many that was found."""
        seqs = [seq for seq, _ in embeddings.added(session, self.makes[0], 0)]
        if self._population is None:
            return LogPoints(self._epsilon), len(seqs)
        sample = np.random.default_rng(0).permutation(seqs)[:SAMPLE]
        pieces = [
            Parts.of(rows, self._epsilon, self._population)
            for _, rows in embeddings.chunks(session, np.sort(sample).tolist(), "parts")
        ]
        arrays = (
            np.concatenate([getattr(parts, name).astype(np.float32) for parts in pieces])
            for name in ("label", "domain", "discriminants")
        )
        projection = Projection.of(*arrays, tasks=len(seqs))
        return PartPoints(self._epsilon, self._population, projection), len(seqs)

    def _fill(self, index: SearchIndex) -> None:
        """All but a few that come meanwhile."""
        taken = AT_ONCE
        while taken == AT_ONCE:
            with self._database.session() as session:
                taken = self._take_in(session, index, AT_ONCE)

    @staticmethod
    def _take_in(session: Session, index: SearchIndex, limit: int | None) -> int:
        found = session.execute(points.missing(session, index).limit(limit)).all()
        if found:
            seqs, tenants = zip(*found, strict=True)
            compared = points.kind_of(session, index).compares
            points.put(session, index, seqs, tenants, embeddings.matrix(session, seqs, compared))
        return len(found)


class _Held:
    """Points of one index, for maps."""

    def __init__(self, database: Database, index: SearchIndex) -> None:
        self._database = database
        self._index = index

    def points(self, seqs: Rows) -> Matrix:
        found = self._of(seqs)
        # Of logs the scale is left out, the last coordinate.
        return found if self._index.key != LOGS else unit(found[:, :-1])

    def nearest(self, seqs: Rows, k: int, onto: Rows | None = None) -> Rows:
        own = self._of(seqs)
        return nearest(own, own if onto is None else self._of(onto), k, itself=onto is None)

    def _of(self, seqs: Rows) -> Matrix:
        """KeyError where one is not held."""
        with self._database.session(read_only=True) as session:
            held = points.points_of(session, self._index).c
            found: dict[int, Vector] = {}
            for start in range(0, len(seqs), _READ_AT_ONCE):
                some = seqs[start : start + _READ_AT_ONCE].tolist()
                query = select(held.embedding_seq, held.points)
                rows = session.execute(query.where(held.embedding_seq.in_(some)))
                found.update((seq, point) for seq, point in rows)
        return np.stack([found[seq] for seq in seqs.tolist()])


def seqs_in(session: Session, index: SearchIndex) -> Rows:
    held = points.points_of(session, index).c
    return np.array(session.scalars(select(held.embedding_seq).order_by(held.embedding_seq)).all())


def count_wrong(session: Session, index: SearchIndex, seqs: Rows, on_row: OnCount) -> int:
    """How many of the embeddings have other points or codes there than they give now."""
    kind, held = points.kind_of(session, index), points.points_of(session, index).c
    wrong = done = 0
    for some, rows in embeddings.chunks(session, np.sort(seqs).tolist(), kind.compares):
        query = select(*held).where(held.embedding_seq.in_(some)).order_by(held.embedding_seq)
        found = session.execute(query).all()
        expected = kind.columns(rows)
        fits = np.isclose([row.points for row in found], expected["points"], rtol=1e-2, atol=1e-2)
        fits = fits.all(axis=1)
        if "codes" in expected:
            codes, anew = (
                np.frombuffer(b"".join(told), np.int8).reshape(len(some), -1).astype(int)
                for told in ([row.codes for row in found], expected["codes"])
            )
            fits &= (abs(codes - anew) <= 1).all(axis=1)  # one step of rounding
        wrong += int((~fits).sum())
        done += len(some)
        on_row(done, len(seqs))
    return wrong


def sweep(session: Session, *, searched: bool) -> int:
    """Drops indexes by which nothing is found any more, none at all unless they are `searched`;
    how many."""
    if session.get_bind().dialect.name != "postgresql":
        return 0
    every = session.scalars(select(SearchIndex)).all()
    gone = [index for index in every if not searched or _is_over(session, index)]
    for index in gone:
        points.drop(session, index)
    return len(gone)


def _is_over(session: Session, index: SearchIndex) -> bool:
    if index.completed_at is None:
        return False  # somebody's work, or the next one's to drop
    population = reference.population(session, index.space_id)
    if index.key != LOGS and (population is None or index.key != parts_key(population)):
        return True
    if not embeddings.count(session, index.space_id):
        return True
    newest = points.newest(session, index.space_id, index.key)
    if newest is None or newest.completed_at is None or newest.seq == index.seq:
        return False
    return newest.completed_at < now() - REPLACED_KEPT


def _incomplete(space_id: str, key: str) -> Select[SearchIndex]:
    return select(SearchIndex).where(
        SearchIndex.space_id == space_id,
        SearchIndex.key == key,
        SearchIndex.completed_at.is_(None),
    )


def _is_outgrown(session: Session, index: SearchIndex) -> bool:
    """Whether other axes would serve so many embeddings better."""
    return index.key != LOGS and points.size(session, index) > REFITTED * index.fitted
