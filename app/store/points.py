"""Search indexes in PostgreSQL: a row of `search_indexes`, and a table of points named for it.

A complete index holds every embedding of its space: whoever adds one adds its points in the same
transaction, and a foreign key takes them away with it. So there is nothing to catch up with, and a
session finds exactly what it sees. Points are halves of floats, few enough for HNSW; with those of
parts stand their codes, which say how alike a proposed task is (`embedding.codes`).
"""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    LargeBinary,
    MetaData,
    Row,
    Select,
    String,
    Table,
    bindparam,
    delete,
    exists,
    func,
    insert,
    literal_column,
    select,
    text,
)
from sqlalchemy.orm import Session
from sqlalchemy.types import UserDefinedType

from app.embedding.codes import CodedParts
from app.embedding.distance import COMBINED, Compared
from app.embedding.parts import Parts, Population, Weights, row_of
from app.embedding.projection import PROJECTED, Dimensions, Projection, log_points, weighed
from app.embedding.vector import TaskEmbedding, Vector
from app.store.tables import Embedding, SearchIndex, new_id, now
from app.store.vectors import Matrix

Columns = Mapping[str, Sequence[Any]]

LOGS = "logs"
_REMEMBERED = 4  # indexes: with axes some 25 MB each
_CONSIDERED = 200
"""Points that each is held against for its place in a graph. With the 64 of pgvector's default one
query of a hundred found none of its nearest, whole clusters being out of reach; with these none."""
_COUNTED = 20_000
"""So many rows at most are counted; of more PostgreSQL has an estimate."""


class HalfVector(UserDefinedType[Vector]):
    """pgvector's, as text."""

    cache_ok = True

    def __init__(self, width: int) -> None:
        self.width = width

    def get_col_spec(self, **_: Any) -> str:
        return f"halfvec({self.width})"

    def bind_processor(self, dialect: Any) -> Any:  # noqa: ARG002
        return lambda values: f"[{','.join(f'{value:.5g}' for value in values.tolist())}]"

    def result_processor(self, dialect: Any, coltype: Any) -> Any:  # noqa: ARG002
        return lambda told: np.fromstring(told[1:-1], np.float32, sep=",")


@dataclass(frozen=True, slots=True)
class LogPoints:
    """As `logs_index` has them."""

    epsilon: float
    compares: ClassVar[Compared] = "vector"
    width: ClassVar[int] = PROJECTED + 1
    searched: ClassVar[Mapping[str, slice]] = {"all": slice(0, PROJECTED + 1)}

    def point(self, row: Vector) -> Vector:
        point: Vector = log_points(row[np.newaxis], self.epsilon)[0]
        return point

    def columns(self, rows: Matrix) -> Columns:
        return {"points": list(log_points(rows, self.epsilon))}


@dataclass(frozen=True, slots=True, eq=False)
class PartPoints:
    """As `parts_index` has them, but weighed as `combined` weighs them: so one column serves every
    metric, which a part of the coordinates serves as well as all."""

    epsilon: float
    population: Population
    projection: Projection
    compares: ClassVar[Compared] = "parts"

    @property
    def dimensions(self) -> Dimensions:
        return self.projection.dimensions

    @property
    def width(self) -> int:
        return self.dimensions.total

    @property
    def searched(self) -> Mapping[str, slice]:
        """Coordinates that a metric may go by, each named for the graph that serves it."""
        label, domain = self.dimensions.label, self.dimensions.domain
        return {
            "all": slice(0, self.width),
            "label": slice(0, label),
            "domain": slice(label, label + domain),
            "discriminants": slice(label + domain, self.width),
        }

    def counted(self, weights: Weights) -> slice:
        """Coordinates of the parts that a metric counts: all, weighed as `combined`, or one."""
        names = [name for name in ("label", "domain", "discriminants") if getattr(weights, name)]
        return self.searched[names[0] if len(names) == 1 else "all"]

    def point(self, parts: Parts) -> Vector:
        points = self.projection.points_of(parts)
        point: Vector = weighed(points, COMBINED, self.dimensions)[0]
        return point

    def columns(self, rows: Matrix) -> Columns:
        parts = Parts.of(rows, self.epsilon, self.population)
        coded = CodedParts.of(parts)
        points = weighed(self.projection.points_of(parts), COMBINED, self.dimensions)
        return {
            "points": list(points),
            "codes": [row.tobytes() for row in coded.codes],
            "scales": [row.astype("<f4").tobytes() for row in coded.scales],
        }

    def axes(self) -> bytes:
        stream = io.BytesIO()
        np.savez(
            stream,
            label=self.projection.label,
            domain=self.projection.domain,
            discriminants=self.projection.discriminants,
            population=np.stack([self.population.label, self.population.domain]),
        )
        return stream.getvalue()

    @classmethod
    def of_axes(cls, epsilon: float, axes: bytes) -> PartPoints:
        with np.load(io.BytesIO(axes), allow_pickle=False) as kept:
            projection = Projection(kept["label"], kept["domain"], kept["discriminants"])
            return cls(epsilon, Population(*kept["population"]), projection)


Kind = LogPoints | PartPoints


class _Remembered:
    """Of indexes that this process met, as their axes never change."""

    def __init__(self) -> None:
        self._kinds: OrderedDict[str, PartPoints] = OrderedDict()
        self._mutex = threading.Lock()

    def of(self, session: Session, index: SearchIndex) -> PartPoints:
        with self._mutex:
            found = self._kinds.get(index.id)
            if found is None:
                axes = session.scalars(select(SearchIndex.axes).where(SearchIndex.id == index.id))
                found = PartPoints.of_axes(index.epsilon, axes.one() or b"")
                self._kinds[index.id] = found
            self._kinds.move_to_end(index.id)
            while len(self._kinds) > _REMEMBERED:
                self._kinds.popitem(last=False)
            return found


_remembered = _Remembered()


def kind_of(session: Session, index: SearchIndex) -> Kind:
    """What the index makes of embeddings."""
    return LogPoints(index.epsilon) if index.key == LOGS else _remembered.of(session, index)


@lru_cache(maxsize=64)
def table_of(index_id: str, width: int, *, coded: bool) -> Table:
    codes = [Column("codes", LargeBinary), Column("scales", LargeBinary)] if coded else []
    return Table(
        f"search_points_{index_id}",
        MetaData(),
        Column("embedding_seq", BigInteger, primary_key=True, autoincrement=False),
        Column("tenant", String(100), nullable=False, index=True),
        Column("points", HalfVector(width), nullable=False),
        *codes,
    )


def points_of(session: Session, index: SearchIndex) -> Table:
    kind = kind_of(session, index)
    return table_of(index.id, kind.width, coded=kind.compares == "parts")


def keep(session: Session, row: Embedding, embedding: TaskEmbedding) -> None:
    """In the unit of work that adds the embedding, which holds the order of commits: its points,
    in every complete index of its space."""
    if session.get_bind().dialect.name != "postgresql":
        return
    complete = (SearchIndex.space_id == row.space_id, SearchIndex.completed_at.is_not(None))
    for index in session.scalars(select(SearchIndex).where(*complete)):
        of_kind = kind_of(session, index).compares
        rows = embedding.vector if of_kind == "vector" else row_of(embedding)
        put(session, index, [row.seq], [row.tenant], rows[np.newaxis])


def put(
    session: Session,
    index: SearchIndex,
    seqs: Sequence[int],
    tenants: Sequence[str],
    rows: Matrix,
) -> None:
    """Embeddings that the index does not hold, `rows` of them as it compares them."""
    columns = kind_of(session, index).columns(rows)
    names = ("embedding_seq", "tenant", *columns)
    values = zip(seqs, tenants, *columns.values(), strict=True)
    session.execute(
        insert(points_of(session, index)), [dict(zip(names, each, strict=True)) for each in values]
    )


def create(session: Session, space_id: str, key: str, fitted: int, kind: Kind) -> SearchIndex:
    """An index that holds nothing yet."""
    axes = kind.axes() if isinstance(kind, PartPoints) else None
    index = SearchIndex(
        id=new_id(), space_id=space_id, key=key, epsilon=kind.epsilon, fitted=fitted, axes=axes
    )
    session.add(index)
    session.flush()
    table = points_of(session, index)
    table.create(session.connection())
    if kind.compares == "parts":  # nothing can be left out of them, so do not look for it
        session.execute(text(f"ALTER TABLE {table.name} ALTER COLUMN codes SET STORAGE EXTERNAL"))
    return index


def missing(session: Session, index: SearchIndex) -> Select[int, str]:
    """Seq and tenant of the space's embeddings that the index does not hold, the oldest first."""
    held = points_of(session, index)
    return (
        select(Embedding.seq, Embedding.tenant)
        .where(
            Embedding.space_id == index.space_id,
            ~exists().where(held.c.embedding_seq == Embedding.seq),
        )
        .order_by(Embedding.seq)
    )


def make_graphs(session: Session, index: SearchIndex) -> None:
    """Of points that are there: many times faster than of points that come one by one."""
    held = points_of(session, index)
    name = held.name
    for graph, coordinates in kind_of(session, index).searched.items():
        session.execute(
            text(
                f"CREATE INDEX IF NOT EXISTS {name}_{graph} ON {name} "
                f"USING hnsw (({_part_of(held, coordinates)}) halfvec_l2_ops) "
                f"WITH (ef_construction = {_CONSIDERED})"
            )
        )
    session.execute(text(f"ANALYZE {name}"))  # or few rows are thought to be there, and all read


def complete(session: Session, index: SearchIndex) -> None:
    """In a unit of work that holds the order of commits, once nothing is missing: from then on
    the index follows its embeddings."""
    held = points_of(session, index)
    there = exists().where(Embedding.seq == held.c.embedding_seq)
    session.execute(delete(held).where(~there))
    session.execute(
        text(
            f"ALTER TABLE {held.name} ADD FOREIGN KEY (embedding_seq) "
            "REFERENCES embeddings (seq) ON DELETE CASCADE"
        )
    )
    index.completed_at = now()


def drop(session: Session, index: SearchIndex) -> None:
    points_of(session, index).drop(session.connection())
    session.delete(index)


def newest(session: Session, space_id: str, key: str) -> SearchIndex | None:
    """The complete index of that key that was completed last."""
    return session.scalar(
        select(SearchIndex)
        .where(
            SearchIndex.space_id == space_id,
            SearchIndex.key == key,
            SearchIndex.completed_at.is_not(None),
        )
        .order_by(SearchIndex.seq.desc())
        .limit(1)
    )


def size(session: Session, index: SearchIndex) -> int:
    """How many embeddings it holds; of very many about how many."""
    held = points_of(session, index)
    about = session.scalar(
        text("SELECT reltuples FROM pg_class WHERE oid = to_regclass(:name)"), {"name": held.name}
    )
    if about is not None and about > _COUNTED:
        return int(about)
    return session.scalar(select(func.count()).select_from(held)) or 0


def proposed(
    session: Session,
    index: SearchIndex,
    point: Vector,
    coordinates: slice,
    n: int,
    *where: ColumnElement[bool],
    exact: bool,
) -> list[Row[Any]]:
    """The `n` rows whose points are nearest by those coordinates; `exact`: all are compared."""
    held = points_of(session, index)
    asked = bindparam(None, point[coordinates], HalfVector(len(point[coordinates])))
    distance: ColumnElement[float] = literal_column(_part_of(held, coordinates)).op("<->")(asked)
    if exact:
        distance = distance + literal_column("0")  # by this no graph is in order
    else:
        settings = {"hnsw.iterative_scan": "relaxed_order", "hnsw.ef_search": min(max(n, 40), 1000)}
        session.execute(
            select(*(func.set_config(name, str(value), True) for name, value in settings.items()))
        )
    codes = [held.c[name] for name in ("codes", "scales") if name in held.c]
    query = (
        select(held.c.embedding_seq, *codes)
        .where(*where)
        .order_by(distance)
        .limit(literal_column(str(n)))
    )
    return list(session.execute(query).all())


def _part_of(held: Table, coordinates: slice) -> str:
    """Literally the same in a search as in its graph, or PostgreSQL would not see that it is."""
    start, width = coordinates.start, coordinates.stop - coordinates.start
    if str(held.c.points.type) == f"halfvec({width})":
        return "points"
    return f"(subvector(points, {start + 1}, {width})::halfvec({width}))"
